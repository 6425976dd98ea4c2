"""What a model does inside: its guesses layer by layer, its attention, a direction of a behaviour, the ground around its weights."""
