"""How a model is run elsewhere: commands and files for llama.cpp, Ollama, LM Studio, vLLM, SGLang and transformers.

Says for each program whether it takes this format, and why not otherwise. Sources: the programs' own documentation
(https://docs.vllm.ai/en/latest/features/quantization, https://docs.sglang.ai/backend/server_arguments.html,
https://ollama.readthedocs.io/en/modelfile, https://lmstudio.ai/docs/cli/local-models/import).
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio import settings

TARGETS = {"llama.cpp": "llama.cpp", "ollama": "Ollama", "lmstudio": "LM Studio", "vllm": "vLLM", "sglang": "SGLang",
           "transformers": "transformers"}
_OLLAMA_READS = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM",
                 "Phi3ForCausalLM")  # as safetensors
_NEEDS_GGUF = "{title} reads GGUF files only."
_MAKE_GGUF = "Make one here: choose GGUF on the Quantize tab and start from the model this one was made of."
_FORMATS = {"gguf": "GGUF", "bitsandbytes": "bitsandbytes", "compressed-tensors": "compressed-tensors", "hqq": "HQQ",
            "exl3": "EXL3", "safetensors": "safetensors"}


@dataclass
class Export:
    """How one program runs the model.

    Attributes:
        commands: ``{title, text}`` each, in the order they are given.
        files: ``{name, text}`` each, to be saved beside the model.
        why: Reason and way out where ``possible`` is false.
    """

    target: str
    title: str
    possible: bool = True
    why: str = ""
    commands: list[dict[str, str]] = field(default_factory=list)
    files: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Model:
    """What is exported.

    Attributes:
        folder: Where it lies.
        source: Folder, or id on the Hub, of the model it was made of; empty where that is not known.
        words: Of its tokenizer: ``template`` (Jinja), ``bos``, ``eos`` (texts), ``stops`` (further texts that end an answer).
    """

    label: str
    folder: Path
    format: str
    meta: dict[str, Any]
    source: str = ""
    words: dict[str, Any] = field(default_factory=dict)

    @property
    def gguf(self) -> Path | None:
        return next(iter(sorted(self.folder.glob("*.gguf"))), None)

    @property
    def place(self) -> str:
        """As a command names it: what was downloaded, on a shared Space; else where it lies."""
        path = self.gguf or self.folder
        return f"./{path.name}" if settings.on_space() else str(path)


def exports(model: Model, chat: Any) -> list[dict[str, Any]]:
    """One :class:`Export` a program, as dicts.

    Args:
        chat: What is known of the model's chat template, a :class:`studio.quantizers.go_template.Found`.
    """
    made = [_llama_cpp(model), _ollama(model, chat), _lmstudio(model), _vllm(model), _sglang(model), _transformers(model)]
    return [asdict(one) for one in made]


def slug(text: str) -> str:
    """A name that every program takes: ``Starter Q4_K_M`` -> ``starter-q4_k_m``."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:60] or "model"


def _command(*words: Any) -> str:
    return " ".join(shlex.quote(str(word)) for word in words)


def _no(target: str, why: str) -> Export:
    return Export(target, TARGETS[target], False, why)


def _llama_cpp(model: Model) -> Export:
    if not model.gguf:
        return _no("llama.cpp", f"{_NEEDS_GGUF.format(title='llama.cpp')} {_MAKE_GGUF}")
    context = ["-c", model.meta["context"]] if model.meta.get("context") else []
    return Export("llama.cpp", TARGETS["llama.cpp"], commands=[
        {"title": "Chat in the terminal", "text": _command("llama-cli", "-m", model.place, *context, "--jinja", "-cnv")},
        {"title": "Serve the OpenAI API on port 8080", "text": _command("llama-server", "-m", model.place, *context, "--jinja")}],
        notes=["--jinja makes it use the chat template in the file."])


def _ollama(model: Model, chat: Any) -> Export:
    name = slug(model.label)
    if not model.gguf and (model.format != "safetensors" or model.meta.get("architecture") not in _OLLAMA_READS):
        return _no("ollama", f"Ollama does not read {_FORMATS.get(model.format, model.format)} files of this kind. {_MAKE_GGUF}")
    made = Export("ollama", TARGETS["ollama"], commands=[
        {"title": "Make it known to Ollama", "text": _command("ollama", "create", name, "-f", "Modelfile")},
        {"title": "Chat", "text": _command("ollama", "run", name)}],
        files=[{"name": "Modelfile", "text": modelfile(model, chat)}])
    if chat.template:
        made.notes.append(f"The template is that of {chat.family}, in Ollama's language. It writes the same text as the model's "
                          "own template; that was compared just now.")
        if not chat.takes_system:
            made.notes.append("Only the system prompt stands elsewhere than in the model's own template: leave it out.")
    elif model.words.get("template"):
        made.notes.append("This chat template is none of those known here, so the Modelfile has no TEMPLATE. Ollama reads the one in "
                          "the file and takes the nearest that it knows; compare an answer with the one in the Chat tab.")
    else:
        made.notes.append("This model has no chat template: Ollama hands it your text as it is, and it goes on from there.")
    return made


def modelfile(model: Model, chat: Any) -> str:
    """Ollama's recipe: where the file is, the chat template, stop words and parameters.

    Format: https://ollama.readthedocs.io/en/modelfile
    """
    lines = [f"FROM {model.place}"]
    if chat.template:
        lines.append(f'TEMPLATE """{chat.template}"""')
    if chat.system:
        lines.append(f'SYSTEM """{chat.system}"""' if '"""' not in chat.system else f"SYSTEM {json.dumps(chat.system)}")
    stops = [*chat.stop, model.words.get("eos") or "", *(model.words.get("stops") or [])]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in dict.fromkeys(filter(None, stops))]
    if context := model.meta.get("context"):
        lines.append(f"PARAMETER num_ctx {min(int(context), 8192)}")
    lines += [f"PARAMETER {name} {value:g}" for name, value in (model.words.get("parameters") or {}).items()]
    return "\n".join(lines) + "\n"


def _lmstudio(model: Model) -> Export:
    if not model.gguf:
        return _no("lmstudio", f"{_NEEDS_GGUF.format(title='LM Studio')} {_MAKE_GGUF}")
    name = slug(model.label)
    return Export("lmstudio", TARGETS["lmstudio"], commands=[
        {"title": "Let LM Studio link the file", "text": _command("lms", "import", model.place, "--user-repo", f"atelier/{name}", "--symbolic-link")},
        {"title": "Load and serve it", "text": _command("lms", "load", name) + "\n" + _command("lms", "server", "start")}],
        files=[{"name": "folders.txt", "text": f"~/.lmstudio/models/\n  atelier/\n    {name}/\n      {model.gguf.name}\n"}],
        notes=["By hand: put the file into folders like these. LM Studio sees only files that lie two folders deep."])


def _vllm(model: Model) -> Export:
    serve = ["vllm", "serve", model.place, "--served-model-name", slug(model.label)]
    if model.gguf:
        made = Export("vllm", TARGETS["vllm"], notes=["vLLM's support of GGUF is experimental, needs a GPU and its plug-in."])
        made.commands = [{"title": "Install the plug-in", "text": "pip install vllm vllm-gguf-plugin"},
                         {"title": "Serve the OpenAI API", "text": _command(*serve, *_tokenizer(model, "--tokenizer", made))}]
        return made
    if model.format in ("hqq", "exl3"):
        return _no("vllm", f"vLLM does not read {_FORMATS[model.format]} files. GPTQ, AWQ, FP8 and INT8 variants are made for it.")
    extra = ["--dtype", "bfloat16"] if model.format == "bitsandbytes" else []
    return Export("vllm", TARGETS["vllm"], commands=[{"title": "Serve the OpenAI API", "text": _command(*serve, *extra)}],
                  notes=["Needs an NVIDIA GPU, and: pip install bitsandbytes"] if model.format == "bitsandbytes" else [])


def _sglang(model: Model) -> Export:
    serve = ["python", "-m", "sglang.launch_server", "--model-path", model.place]
    made = Export("sglang", TARGETS["sglang"])
    if model.format in ("hqq", "exl3"):
        return _no("sglang", f"SGLang does not read {_FORMATS[model.format]} files. GPTQ, AWQ, FP8 and INT8 variants are made for it.")
    extra: list[Any] = []
    if model.gguf:
        extra = ["--load-format", "gguf", "--quantization", "gguf", *_tokenizer(model, "--tokenizer-path", made)]
    elif model.format == "bitsandbytes":
        extra = ["--load-format", "bitsandbytes", "--quantization", "bitsandbytes"]
        made.notes.append("Needs an NVIDIA GPU, and: pip install bitsandbytes")
    made.commands = [{"title": "Serve the OpenAI API on port 30000", "text": _command(*serve, *extra)}]
    return made


def _tokenizer(model: Model, flag: str, made: Export) -> list[str]:
    """Where a server of GGUF files takes the tokenizer from: it reads that of the file slowly, and not always rightly."""
    if not model.source or settings.on_space():
        made.notes.append(f"Add {flag} with the model this was made of: the tokenizer in the file is read slowly and not always rightly.")
        return []
    return [flag, model.source]


def _transformers(model: Model) -> Export:
    if model.gguf:
        return _no("transformers", "transformers would unpack the file to full size again, and refuses the tokenizers of many GGUF "
                   "files. Use the model it was made of, or a bitsandbytes, GPTQ or AWQ variant.")
    if model.format == "exl3":
        return _no("transformers", "EXL3 files are run by exllamav3 and TabbyAPI, which need an NVIDIA GPU.")
    packages = {"bitsandbytes": "bitsandbytes", "compressed-tensors": "compressed-tensors", "hqq": "hqq"}
    install = ["pip", "install", "transformers<5" if model.format == "hqq" else "transformers", "accelerate",
               *filter(None, [packages.get(model.format)])]
    loads = ("from transformers import AutoModelForCausalLM",
             'model = AutoModelForCausalLM.from_pretrained(folder, device_map="auto")')
    words = ("from transformers import AutoTokenizer", "tokenizer = AutoTokenizer.from_pretrained(folder)")
    if model.format == "hqq":  # transformers 4 reads these weights, but not a tokenizer's settings as version 5 writes them
        words = ("from transformers import PreTrainedTokenizerFast",
                 'tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")\n'
                 'tokenizer.chat_template = open(f"{folder}/chat_template.jinja").read()')
    chat = ('text = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=False)'
            if model.words.get("template") else 'text = "Once upon a time"')
    script = "\n".join([loads[0], words[0], "", f"folder = {model.place!r}", words[1], loads[1], chat,
                        'given = tokenizer(text, return_tensors="pt", add_special_tokens=False).to(model.device)',
                        "made = model.generate(**given, max_new_tokens=200)",
                        'print(tokenizer.decode(made[0, given["input_ids"].shape[1]:], skip_special_tokens=True))', ""])
    return Export("transformers", TARGETS["transformers"], commands=[{"title": "Install", "text": _command(*install)}],
                  files=[{"name": "chat.py", "text": script}])


def words_of(folder: Path) -> dict[str, Any]:
    """Template, begin and end token and sampling parameters, from the JSON files of a model's folder."""
    def read(name: str) -> dict[str, Any]:
        try:
            value = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    config, generation = read("tokenizer_config.json"), read("generation_config.json")
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((one.get("template") for one in template if one.get("name") == "default"), None)
    own = folder / "chat_template.jinja"
    if own.is_file():
        template = own.read_text("utf-8", "replace")
    parameters = {name: float(generation[name]) for name in ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
                  if isinstance(generation.get(name), int | float) and not isinstance(generation.get(name), bool)}
    if not generation.get("do_sample"):
        parameters = {}  # without it the library ignores them
    return {"template": template or "", "bos": _text(config.get("bos_token")), "eos": _text(config.get("eos_token")),
            "parameters": parameters}


def _text(token: Any) -> str:
    return str(token.get("content") or "") if isinstance(token, dict) else str(token or "")


def chat_of(template: str, bos: str = "", eos: str = "") -> dict[str, Any]:
    """What writes the same as this Jinja template; run in a process of its own (:func:`studio.jobs.probe.call`), because a
    template is somebody else's program.

    Returns:
        :class:`studio.quantizers.go_template.Found` as a dict.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    from studio.quantizers import go_template

    def tell(messages: list[dict[str, str]]) -> str:
        text = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, bos_token=bos,
                                     eos_token=eos)[0][0]
        return text.removeprefix(bos) if bos else text

    return asdict(go_template.recognise(template, tell))
