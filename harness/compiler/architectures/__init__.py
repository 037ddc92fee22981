"""One file for each family of models: its parameters, and its forward pass in Relax."""
