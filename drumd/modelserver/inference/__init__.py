"""A model directory, loaded: its hooks and artifact, what they are asked and may answer."""
