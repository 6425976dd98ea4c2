"""What the evaluations that ask a model for its behaviour share: asking with a journal, reading answers, intervals."""
