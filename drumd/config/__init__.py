"""What is wanted: settings, their sources, and the problems in them."""
