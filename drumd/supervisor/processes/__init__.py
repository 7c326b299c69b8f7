"""Processes: spawning, exits, groups, log pipes, and what is left behind."""
