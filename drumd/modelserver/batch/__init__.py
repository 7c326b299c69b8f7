"""Scoring files with a model, in chunks, without a server."""
