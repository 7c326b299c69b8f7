"""A process supervisor for Python web and model servers."""

__version__ = "0.1.0"
