"""Models, datasets and files the studio knows, with where each came from."""
