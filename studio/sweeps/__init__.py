"""Sweeps: the same recipe several times with other values, each a child run in the queue. Suggestions by Optuna."""
