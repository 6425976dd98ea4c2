"""Ways to make one model out of several parts: one file each."""
