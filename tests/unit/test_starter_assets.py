"""The shipped starter: size, shape, tokenizer and card, read without torch."""

import json
import re
import struct
from pathlib import Path

import pytest
import yaml

from studio.errors import StudioError
from studio.starter import build, skills

FOLDER = Path(__file__).parents[2] / "assets" / "starter"
CONFIG = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))


def test_size_and_shape():
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 8_000_000
    assert CONFIG["model_type"] == "llama" and CONFIG["tie_word_embeddings"]
    assert CONFIG["hidden_size"] % 256 == CONFIG["intermediate_size"] % 256 == 0
    with (FOLDER / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    tensors = {k: v for k, v in header.items() if k != "__metadata__"}
    parameters = 0
    for tensor in tensors.values():
        count = 1
        for side in tensor["shape"]:
            count *= side
        parameters += count
        assert tensor["dtype"] == "BF16"
    assert 1_000_000 <= parameters <= 4_000_000


def test_tokenizer_is_byte_level_chatml():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    assert tokenizer.get_vocab_size() <= CONFIG["vocab_size"]
    assert tokenizer.token_to_id("<|pad|>") == CONFIG["pad_token_id"]
    assert tokenizer.token_to_id("<|im_end|>") == CONFIG["eos_token_id"]
    text = "Anna — «ж» 17 + 8?\n"
    encoded = tokenizer.encode(text)
    assert tokenizer.decode(encoded.ids) == text
    assert "1" in encoded.tokens and "7" in encoded.tokens, "digits stand alone"


def test_template_marks_the_answer_with_its_end():
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Marks(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            from jinja2 import nodes

            return [nodes.Output([nodes.TemplateData("[")], lineno=line), *body,
                    nodes.Output([nodes.TemplateData("]")], lineno=line)]

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Marks])
    environment.filters["tojson"] = json.dumps
    template = environment.from_string((FOLDER / "chat_template.jinja").read_text(encoding="utf-8"))
    said = (("system", "S"), ("user", "Q"), ("assistant", "A"))
    chat = [{"role": role, "content": content} for role, content in said]
    assert template.render(messages=chat, add_generation_prompt=False).strip() == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n[A<|im_end|>]")
    with_tools = template.render(messages=chat[1:], tools=[{"name": "f"}], add_generation_prompt=True)
    assert '{"name": "f"}' in with_tools and with_tools.endswith("<|im_start|>assistant\n")


def test_card_gives_measured_numbers_and_the_recipe():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for skill in (*skills.SKILLS, *skills.UNTAUGHT):
        assert re.search(rf"\| {skill} \| [^|]+ \| \d+ \| \d+\.\d% \|", text), skill
    assert float(re.search(r"perplexity (\d+\.\d+)", text)[1]) < 5
    assert "python -m studio.starter.build" in text
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    assert recipe["hidden_size"] == CONFIG["hidden_size"] and recipe["vocab_size"] == CONFIG["vocab_size"]


def test_card_says_what_was_measured():
    result = {"loss": 0.4, "perplexity": 1.49, "seed": 7, "questions": {"sums": 30, "polite": 40},
              "accuracy": {"sums": 0.5, "polite": 0.0}}
    text = build.card({"parameters": 2_623_744, "seconds": 600, "steps": 10, "tokens": 2e6}, result, 5_000_000)
    assert "2,623,744 parameters (5.0 MB" in text and "| 30 | 50.0% |" in text
    assert text.index("| sums") < text.index("What it was not taught") < text.index("| polite")


def test_an_unfinished_run_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    with pytest.raises(StudioError, match="no finished model"):
        build.install("rabcdefghij", tmp_path / "out")
    assert not (tmp_path / "out").exists()
