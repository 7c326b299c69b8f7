"""Observation: journal, logs, metrics, and what systemd is told."""
