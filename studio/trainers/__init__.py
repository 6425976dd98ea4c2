"""Training methods: one file each, on shared recipe fields (common.py) and one training loop (loop.py)."""
