"""Features to snippet scores, frame scores and events."""
