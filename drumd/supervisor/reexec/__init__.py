"""Re-exec: the supervisor replaces its own program and keeps everything else."""
