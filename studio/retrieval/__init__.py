"""Answers from documents: collections, search, the guard against what stands hidden in them."""
