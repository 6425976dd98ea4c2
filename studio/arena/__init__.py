"""Blind battles between two models: who wins them, how sure that is, and the preferences that come of it."""
