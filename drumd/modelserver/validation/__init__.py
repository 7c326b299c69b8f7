"""Trying a model out before it serves, and saying what to fix."""
