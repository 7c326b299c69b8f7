"""What happens: the daemon's inside."""
