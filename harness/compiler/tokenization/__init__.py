"""A checkpoint's tokenizer, and the compact form in which a package carries it."""
