"""Models in numbers, without tvm: the reference, and how near a package is to it."""
