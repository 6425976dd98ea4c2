"""Small conversions whose source is copied into exported scripts. Each stands alone and takes one row as its file has it."""


def as_it_is(row):
    return {k: row[k] for k in ("messages", "tools", "prompt", "completion", "text") if row.get(k)}


def from_alpaca(row):
    question = row["instruction"] + ("\n\n" + row["input"] if row.get("input") else "")
    head = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return {"messages": head + [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]}


def from_alpaca_pair(row):
    return {"prompt": row["instruction"] + ("\n\n" + row["input"] if row.get("input") else ""), "completion": row["output"]}


def from_sharegpt(row):
    roles = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system", "tool": "tool"}
    return {"messages": [{"role": roles[m["from"]], "content": m["value"]} for m in row["conversations"]]}


CONVERSIONS = (as_it_is, from_alpaca, from_alpaca_pair, from_sharegpt)
