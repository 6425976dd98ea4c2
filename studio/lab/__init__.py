"""Experiments with models that are already there: how they cut text, choose words, and think."""
