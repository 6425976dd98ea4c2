"""The one error a person is meant to read."""

from __future__ import annotations


class StudioError(Exception):
    """Something the person can mend. Anything else that is raised is a bug and keeps its traceback.

    Args:
        message: What is wrong and why, one plain sentence.
        hint: What to do next, one plain sentence.
        field: Name of the recipe field it belongs to, so that a form can show it in place.
    """

    def __init__(self, message: str, hint: str = "", field: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f" {self.hint}" if self.hint else "")

    def to_dict(self) -> dict[str, str | None]:
        return {"message": self.message, "hint": self.hint, "field": self.field}
