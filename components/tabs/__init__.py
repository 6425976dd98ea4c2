"""One file per tab; each has ``build(shell)``."""
