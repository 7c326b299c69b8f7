"""The model server: it serves one model directory, with equal answers from Flask and FastAPI."""
