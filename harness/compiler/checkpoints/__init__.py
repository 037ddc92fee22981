"""Checkpoints as the compiler sees them, whatever file they came from: nothing is believed."""
