"""The report in three steps: facts (:mod:`facts`), put in order as sections of plain blocks (:mod:`document`), written as HTML, PDF or
Markdown. What a model or a person wrote stays text on the way: each writer escapes everything it is given."""
