"""Health: what the scoreboard's heartbeats and requests say of a worker."""
