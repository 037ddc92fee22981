"""The compiler: checkpoints in, model packages out. The only part that imports tvm."""
