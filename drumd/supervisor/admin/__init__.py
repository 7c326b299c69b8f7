"""The admin API on a Unix socket, and the read-only one on TCP."""
