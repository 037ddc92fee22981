"""The model package: its files, what it says of itself, its archive and its name."""
