"""Build, deploy and measure language models on Android phones."""

__version__ = "0.1.0"
