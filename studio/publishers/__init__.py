"""Jobs that give a result to others."""
