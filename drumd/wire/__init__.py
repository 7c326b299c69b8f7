"""What the supervisor and its workers must agree on; nothing here imports either side."""
