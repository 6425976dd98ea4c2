"""Several recipes one after the other, each going on with what an earlier one made."""
