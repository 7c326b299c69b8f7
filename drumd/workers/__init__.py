"""What serves: the worker's entry, its runtimes and instruments."""
