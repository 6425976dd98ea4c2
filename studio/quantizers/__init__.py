"""Smaller variants of a model, each proven against what it was made from."""
