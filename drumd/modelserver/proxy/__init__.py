"""The proxy to a backend beside the model."""
