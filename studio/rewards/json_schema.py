"""JSON of a given shape."""

from __future__ import annotations

from studio.datasets import verify
from studio.datasets.verify import Undecided, Verdict
from studio.errors import StudioError
from studio.recipe import field
from studio.rewards.base import Checked, Reference, Row


class JsonSchemaOptions(Reference):
    json_schema: str = field("", "JSON Schema", "The shape of a right answer, e.g. {\"type\": \"object\"}. Left "
                             "empty, it is the row's own, in the column under 'Advanced'.", widget="text",
                             max_length=20_000)


class JsonSchema(Checked):
    title = "JSON of a shape"
    help = "1 if the answer is JSON that fits the schema, 0.5 if it is JSON of another shape, 0 if it is none."
    needs = False
    Options = JsonSchemaOptions

    def check(self) -> None:
        try:
            if self.options.json_schema:
                verify.validator_of(self.options.json_schema)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "json_schema") from err

    def score(self, answer: str, row: Row) -> Verdict:
        schema, column = self.options.json_schema, self.options.column
        if not schema and not verify.expected(row, column):
            raise Undecided("no schema is given, and the row has none")
        return verify.check("json_schema")(answer, row, schema=schema, column=column)
