"""The starter world: a seeded closed world, its corpus, its held-out questions and their exact scoring."""
