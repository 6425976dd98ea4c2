"""Measuring models: one file a way."""
