"""What a model server is told: its directory, its target, its runtime parameters, its server."""
