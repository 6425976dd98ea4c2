"""Pictures: a tiny model with eyes, made of a configuration, sees them through the API; whoever reads text alone refuses them."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import pytest

from studio import settings
from studio.chat import manager, pictures, session
from studio.errors import StudioError

GREEDY = {"temperature": 0, "max_tokens": 12}

_MAKE = """
import sys, torch
from transformers import (AutoTokenizer, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor)
try:
    from transformers import CLIPImageProcessorPil as Pictures  # without torchvision
except ImportError:
    from transformers import CLIPImageProcessor as Pictures
starter, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(starter)
tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
torch.manual_seed(0)
eyes = CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
                        projection_dim=32)
text = LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                   num_key_value_heads=1, max_position_embeddings=256, eos_token_id=2, pad_token_id=0, bos_token_id=None)
model = LlavaForConditionalGeneration(LlavaConfig(vision_config=eyes, text_config=text, vision_feature_select_strategy="default",
    image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1))
for weight in model.parameters():
    if weight.dim() > 1:
        torch.nn.init.normal_(weight, std=0.5)
model.save_pretrained(out)
template = ("{% for m in messages %}<|im_start|>{{ m.role }}\\n{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
            "{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}")
LlavaProcessor(Pictures(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer, patch_size=8,
               vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=template).save_pretrained(out)
"""


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> str:
    """A folder with a tiny random model that sees."""
    out = tmp_path_factory.mktemp("models") / "seeing"
    subprocess.run([sys.executable, "-c", _MAKE, str(settings.STARTER), str(out)], check=True, timeout=180)
    return str(out)


def address(color: str, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", size, color).save(data, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def part(url: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


def ask(ref: str, *content: dict | str) -> dict:
    parts = [{"type": "text", "text": one} if isinstance(one, str) else one for one in content]
    return list(session.stream(ref, [{"role": "user", "content": parts}], GREEDY))[-1]


def test_the_answer_depends_on_the_picture_and_is_the_librarys(workspace, seeing):
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor, model = AutoProcessor.from_pretrained(seeing), AutoModelForImageTextToText.from_pretrained(seeing).eval()
    found = {}
    for color in ("red", "blue"):
        answer = found[color] = ask(seeing, part(address(color)), "What is this?")
        content = [{"type": "image", "image": Image.new("RGB", (40, 30), color)}, {"type": "text", "text": "What is this?"}]
        inputs = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,
                                               return_dict=True, return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1]:]
        assert answer["text"] == processor.tokenizer.decode(made, skip_special_tokens=True)
        assert answer["prompt_tokens"] == inputs["input_ids"].shape[1]
    assert found["red"]["text"] != found["blue"]["text"], "it looks"
    assert ask(seeing, part(address("red", kind="JPEG")), "What is this?")["prompt_tokens"] == found["red"]["prompt_tokens"]
    two = ask(seeing, part(address("red")), part(address("blue")), "Which?")
    assert two["prompt_tokens"] > found["red"]["prompt_tokens"] + 10
    assert ask(seeing, "No picture this time.")["text"]


def test_a_model_that_reads_text_refuses_pictures(workspace):
    with pytest.raises(StudioError) as err:
        ask("starter", part(address("red")), "What is this?")
    assert "text only" in err.value.message and err.value.field == "messages"


@pytest.mark.parametrize("content, word", [
    (part("http://127.0.0.1:1/cat.png"), "sent itself"), (part("file:///etc/passwd"), "sent itself"), (part("data:text/html;base64,AA=="), "sent itself"),
    (part("data:image/png;base64,AAAA"), "no picture"), (part("data:image/png;base64,!!!"), "no picture"), ({"type": "image_url"}, "sent itself"),
    ({"type": "input_audio", "input_audio": {}}, "not 'input_audio'")])
def test_what_is_no_picture_is_refused(workspace, seeing, content, word):
    with pytest.raises(StudioError) as err:
        ask(seeing, content, "What is this?")
    assert word in err.value.message
    assert not any(engine["active"] for engine in manager.engines())


def test_too_much_is_refused(workspace, seeing, monkeypatch):
    with pytest.raises(StudioError, match="pictures are read at once"):
        pictures.opened([{"role": "user", "content": [part(address("red"))] * 17}])
    with pytest.raises(StudioError, match="tokens long with its pictures"):
        ask(seeing, *[part(address("red"))] * 16, "What is this? " * 4)
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    with pytest.raises(StudioError, match="pixels"):
        pictures.picture(address("red"))
    monkeypatch.setattr(pictures, "MOST_BYTES", 10)
    with pytest.raises(StudioError, match="MB"):
        pictures.picture(address("red"))
