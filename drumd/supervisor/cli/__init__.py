"""Command lines: `drumd` and `drumctl`."""
