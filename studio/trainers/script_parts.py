"""Small conversions whose source is copied into exported scripts. Each stands alone."""


def as_it_is(row):
    return {k: row[k] for k in ("messages", "tools", "prompt", "completion", "text") if row.get(k)}


def from_alpaca(row):
    question = row["instruction"] + ("\n\n" + row["input"] if row.get("input") else "")
    head = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return {"messages": head + [{"role": "user", "content": question},
                                {"role": "assistant", "content": row["output"]}]}


def from_alpaca_pair(row):
    return {"prompt": row["instruction"] + ("\n\n" + row["input"] if row.get("input") else ""),
            "completion": row["output"]}


def from_sharegpt(row):
    roles = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
             "tool": "tool"}
    return {"messages": [{"role": roles[m["from"]], "content": m["value"]} for m in row["conversations"]]}


CONVERSIONS = (as_it_is, from_alpaca, from_alpaca_pair, from_sharegpt)


def answer_mask(tokenizer, messages, tools=None):
    """Tokens of a conversation, and 1 for each that the assistant says, found by rendering up to each answer."""
    def render(part, prompt):
        return tokenizer.apply_chat_template(part, tools=tools or None, tokenize=False, add_generation_prompt=prompt)

    text, spans = render(messages, False), []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before, after = render(messages[:i], True), render(messages[: i + 1], False)
            if not (text.startswith(before) and text.startswith(after)):
                raise ValueError("in this chat template the answers cannot be told from the questions")
            spans.append((len(before), len(after)))
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return out["input_ids"], [int(any(a < end and b > start for start, end in spans)) for a,
                              b in out["offset_mapping"]]
