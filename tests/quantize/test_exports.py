"""How a model is run elsewhere: Ollama's template says what the model's own says, and every program gets what it takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from studio import settings
from studio.quantizers import exports, go_template
from studio.quantizers.go_template import Found

# As models of these families are shipped, shortened by what concerns tools and pictures.
LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
          "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + "
          "content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>"
          "\n\n' }}{% endif %}")
GEMMA2 = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
          "{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = "
          "message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}")
GEMMA3 = ("{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set prefix = messages[0]['content'] + '\n\n' -%}{%- set "
          "rest = messages[1:] -%}{%- else -%}{%- set prefix = '' -%}{%- set rest = messages -%}{%- endif -%}{%- for m in rest -%}"
          "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + (prefix if loop.first else '') }}"
          "{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}"
          "{%- endif -%}")
PHI3 = ("{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif "
        "message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
        "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}")
MISTRAL = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
           "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and "
           "assistant roles are supported!') }}{% endif %}{% endfor %}")
MISTRAL_7 = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '[SYSTEM_PROMPT] ' + message['content'] + "
             "'[/SYSTEM_PROMPT]' }}{% elif message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}{% else %}{{ ' ' + "
             "message['content'] + eos_token }}{% endif %}{% endfor %}")
QWEN = ("{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{%- else %}"
        "{{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{%- endif %}{%- for m in messages %}{%- if not (m.role == 'system' and "
        "loop.first) %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}{%- if "
        "add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}")
ALMOST = QWEN.replace("m.content + '<|im_end|>", "m.content + ' <|im_end|>")  # one blank more in each turn


@pytest.mark.parametrize(("template", "bos", "eos", "family", "system", "takes"), [
    (LLAMA3, "<|begin_of_text|>", "<|eot_id|>", "Llama 3", "", True), (GEMMA2, "<bos>", "<eos>", "Gemma", "", False),
    (GEMMA3, "<bos>", "<eos>", "Gemma", "", True), (PHI3, "<s>", "<|endoftext|>", "Phi-3", "", True),
    (MISTRAL, "<s>", "</s>", "Mistral", "", False), (MISTRAL_7, "<s>", "</s>", "Mistral", "", True),
    (QWEN, "", "<|im_end|>", "ChatML", "You are helpful.", True), (ALMOST, "", "<|im_end|>", "", "", True),
    ("{{ messages[0]['content'] }}", "", "", "", "", True), ("{{ raise_exception('no') }}", "", "", "", "", True)])
def test_a_family_is_known_by_what_it_writes(template, bos, eos, family, system, takes):
    found = Found(**exports.chat_of(template, bos, eos))
    assert (found.family, found.system, found.takes_system) == (family, system, takes)
    assert bool(found.template) == bool(family)
    if family:
        assert bos not in found.template or not bos, "the program adds the begin token itself"


def test_the_starters_own_template_is_chatml():
    words = exports.words_of(settings.STARTER)
    found = Found(**exports.chat_of(words["template"], words["bos"], words["eos"]))
    chat = [("system", "Be kind."), ("user", "1 + 1?"), ("assistant", "2."), ("user", "Thanks!")]
    assert found.family == "ChatML" and words["eos"] == "<|im_end|>"
    assert go_template.say(found.template, chat) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n2.<|im_end|>\n"
        "<|im_start|>user\nThanks!<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(("template", "text"), [
    ('{{ if eq .System "a" }}yes{{ else if .System }}no{{ else }}none{{ end }}', "none"),
    ('{{- range .Messages }}\n  {{- if not (eq .Role "user") }}!{{ else }}{{ .Content -}}  \n{{ end }}{{ end }}.', "hi."),
    ("a  {{- $n := true }}{{ if and $n .Messages }} b{{ $n = false }}{{ end }}{{ if $n }}c{{ end }}", "a b")])
def test_the_small_part_of_gos_language(template, text):
    if "(eq" in template:
        with pytest.raises(ValueError, match="not understood"):
            go_template.say(template, [("user", "hi")])
        template = template.replace('not (eq .Role "user")', 'eq .Role "assistant"')
    assert go_template.say(template, [("user", "hi")]) == text


def folder(tmp_path: Path, name: str, *files: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    for file in files:
        (made / file).write_text("{}")
    return made


def test_a_gguf_goes_everywhere_but_into_transformers(tmp_path):
    place = folder(tmp_path, "a b", "model.gguf")
    words = exports.words_of(settings.STARTER) | {"parameters": {"temperature": 0.7}}
    chat = Found(**exports.chat_of(words["template"]))
    model = exports.Model("My Starter Q4_K_M", place, "gguf", {"context": 512}, "/models/src", words)
    made = {one["target"]: one for one in exports.exports(model, chat)}
    assert list(made) == list(exports.TARGETS)
    assert [name for name, one in made.items() if not one["possible"]] == ["transformers"]
    assert "bitsandbytes" in made["transformers"]["why"]
    for one in made.values():
        for command in one["commands"]:
            shlex.split(command["text"])  # a path with a blank stays one word
    text = made["ollama"]["files"][0]["text"]
    assert f"FROM {place}/model.gguf\n" in text and 'TEMPLATE """{{- range .Messages }}<|im_start|>' in text
    assert 'PARAMETER stop "<|im_end|>"' in text and "PARAMETER num_ctx 512" in text and "PARAMETER temperature 0.7" in text
    assert text.count('"<|im_end|>"') == 1, "a stop word is said once"
    assert made["ollama"]["commands"][1]["text"] == "ollama run my-starter-q4_k_m"
    assert shlex.split(made["vllm"]["commands"][1]["text"])[-2:] == ["--tokenizer", "/models/src"]
    assert "gguf" in made["sglang"]["commands"][0]["text"] and "--symbolic-link" in made["lmstudio"]["commands"][0]["text"]
    unknown = exports.modelfile(model, Found())
    assert "TEMPLATE" not in unknown and 'stop "<|im_end|>"' in unknown, "the end token is known without the template"


@pytest.mark.parametrize(("format", "meta", "possible"), [
    ("bitsandbytes", {}, {"vllm", "sglang", "transformers"}), ("compressed-tensors", {}, {"vllm", "sglang", "transformers"}),
    ("hqq", {}, {"transformers"}), ("exl3", {}, set()),
    ("safetensors", {"architecture": "LlamaForCausalLM"}, {"ollama", "vllm", "sglang", "transformers"}),
    ("safetensors", {"architecture": "OtherForCausalLM"}, {"vllm", "sglang", "transformers"})])
def test_other_formats_say_where_they_go_and_why_not_elsewhere(tmp_path, format, meta, possible):
    place = folder(tmp_path, "m", "model.safetensors", "config.json")
    made = exports.exports(exports.Model("M", place, format, meta), Found())
    assert {one["target"] for one in made if one["possible"]} == possible
    for one in made:
        assert one["commands"] or one["files"] if one["possible"] else len(one["why"]) > 30
    if "transformers" in possible:
        script = next(one for one in made if one["target"] == "transformers")["files"][0]["text"]
        compile(script, "chat.py", "exec")
        assert repr(str(place)) in script


def test_on_a_space_no_path_of_its_disk_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "ann/space")
    place = folder(tmp_path, "m", "model.gguf")
    made = exports.exports(exports.Model("M", place, "gguf", {}, "/secret/place"), Found())
    assert str(tmp_path) not in str(made) and "/secret" not in str(made) and "./model.gguf" in str(made)


def test_the_script_for_transformers_runs(tmp_path):
    """What is handed out answers, for a whole model as for every format that transformers loads by itself."""
    import subprocess
    import sys

    words = exports.words_of(settings.STARTER)
    made = exports.exports(exports.Model("Starter", settings.STARTER, "safetensors", {}, "", words), Found())
    script = next(one for one in made if one["target"] == "transformers")["files"][0]["text"]
    done = subprocess.run([sys.executable, "-c", script.replace("=200", "=8")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]
