"""A model's tokenizer as GGUF holds it, so that llama.cpp makes the same tokens of a text.

Three kinds are known: byte-level BPE (GPT-2's scheme; home-trained ones too), the BPE of SentencePiece with bytes as a last
resort (Llama 2, Mistral, Gemma), and SentencePiece's unigram model. Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.library import modelinfo

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # token types of GGUF
ADDED = -1000.0  # score of a token that is matched whole, never merged
LOWEST = -10000.0  # score of an id without a token
_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused\d*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)  # special though not marked so
MAX_JSON = 128 * 1024 * 1024

_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASH = r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CAMEL = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|")
# how text is split before merging -> (the name llama.cpp knows it by where merges are always followed, and where a word that is
# a token stays whole); None: llama.cpp has no such name
SPLITS: dict[str, tuple[str | None, str | None]] = {
    _GPT2: ("gpt-2", None),
    rf"\p{{N}}⏎{_GPT2}": ("smollm", None),
    rf"{_CASELESS}|{_WORD}|\p{{N}}|{_MARKS}": ("qwen2", None),
    rf"{_CASELESS}|{_WORD}|\p{{N}}{{1,3}}|{_MARKS}": ("smaug-bpe", "llama-bpe"),
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+":
        ("dbrx", None),
    _CAMEL % ("", "") + _SLASH: (None, "tekken"),
    _CAMEL % (_CASELESS + "?", _CASELESS + "?") + _SLASH.replace(r"\p{N}|", r"\p{N}{1,3}|", 1): ("gpt-4o", None),
    rf"{_CASELESS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+":
        ("qwen35", None),
}


@dataclass
class Vocabulary:
    """What is written into the file.

    Attributes:
        model: ``gpt2`` (byte-level BPE) | ``llama`` (SentencePiece BPE) | ``t5`` (unigram), llama.cpp's words.
        flags: Further facts under ``tokenizer.ggml.``, such as ``add_space_prefix``.
        notes: Sentences for the person.
    """

    model: str
    pre: str
    tokens: list[bytes]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    charsmap: bytes = b""
    flags: dict[str, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(folder: Path, size: int) -> Vocabulary:
    """The vocabulary of a model folder, padded to the ``size`` of the model's embeddings.

    Raises:
        StudioError: no tokenizer, one of an unknown kind, or one with more tokens than the model.
    """
    data = load(folder)
    kind = (data.get("model") or {}).get("type")
    if kind == "BPE" and _byte_level(data):
        return _bytes_bpe(data, size)
    if (folder / "tokenizer.model").is_file():
        return _spaced(_sentencepiece(folder, data, size), data, folder)
    if kind == "BPE" and data["model"].get("byte_fallback"):
        return _spaced(_pieces_bpe(data, size), data, folder)
    if kind == "Unigram":
        return _spaced(_unigram(data, size), data, folder)
    if not data:
        raise StudioError(f"{folder.name} has no tokenizer that a GGUF file could hold (tokenizer.json or tokenizer.model).",
                          "Save the model again with its tokenizer (save_pretrained writes tokenizer.json).", "model")
    raise StudioError(f"The tokenizer of {folder.name} is of a kind that GGUF files cannot hold ({kind}).",
                      "Byte-level BPE, SentencePiece BPE and unigram tokenizers can be converted.", "model")


def load(folder: Path) -> dict[str, Any]:
    """``tokenizer.json``, or nothing where there is none.

    Raises:
        StudioError: it is broken.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError("too large")
        data = json.loads(path.read_text("utf-8"))
        if not isinstance(data["model"], dict):
            raise TypeError("no model")
        return data
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise StudioError(f"{folder.name}/tokenizer.json is broken.", "Download or save the model again.", "model") from err


def special(folder: Path, count: int, merges: bool, unigram: bool = False) -> Any:
    """Start, end and other special tokens with the chat template, as the gguf package finds them in the folder.

    Where a model ends its answers with more than one token, the second and third are named too, as llama.cpp then ends
    there as well.
    """
    import gguf

    found = gguf.SpecialVocab(folder, load_merges=merges, n_vocab=count)
    ends: list[int] = []
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = modelinfo._json(folder / name).get("eos_token_id")
            ends += [end for end in (value if isinstance(value, list) else [value]) if isinstance(end, int)]
    ids = found.special_token_ids
    others = [end for end in dict.fromkeys(ends) if 0 <= end < count]
    if others:
        ids.setdefault("eos", others[0])
    left = [end for end in others if end not in ids.values()]
    for word, end in zip([word for word in ("eot", "eom") if word not in ids], left, strict=False):
        ids[word] = end
    found.add_special_token.setdefault("bos", False)  # else llama.cpp adds one to SentencePiece and Llama 3 tokenizers
    if unigram:
        found.add_special_token.setdefault("eos", False)  # and an end to every text of a unigram tokenizer
    if isinstance(found.chat_template, list):  # of several the default; llama.cpp reads one
        named = {t.get("name"): t.get("template") for t in found.chat_template if isinstance(t, dict)}
        found.chat_template = named.get("default") or next(iter(named.values()), None)
    return found


def pre_tokenizer(data: dict[str, Any]) -> str:
    """llama.cpp's name for how a byte-level BPE splits text before it merges.

    Raises:
        StudioError: it knows none that splits alike; with another one the model would read other tokens than it learned.
    """
    split = _split(data)
    whole = bool(data["model"].get("ignore_merges"))
    names = SPLITS.get(split or "")
    if names:
        name = names[whole] or (names[0] if whole else None)
        if name:
            return name
    raise StudioError("The tokenizer splits text in a way that llama.cpp does not know: " + (split or "unknown")[:200],
                      "Tokenizers trained here, and those of GPT-2, Qwen, Llama 3, Mistral and Phi, are known.", "model")


def _split(data: dict[str, Any]) -> str | None:
    """The pattern of a pre-tokenizer; several one after another joined by ⏎."""
    steps = _steps(data.get("pre_tokenizer"))
    found = []
    for step in steps:
        kind = step.get("type")
        if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            found.append((step.get("pattern") or {}).get("Regex") or "?")
        elif kind == "Split" and step.get("behavior") == "Removed" and step.get("invert"):  # keeps what matches: the same
            found.append((step.get("pattern") or {}).get("Regex") or "?")
        elif kind == "Digits" and step.get("individual_digits"):
            found.append(r"\p{N}")
        elif kind == "ByteLevel":
            if step.get("add_prefix_space"):
                return "a space is put in front of every text"
            if step.get("use_regex", True):
                found.append(_GPT2)
        else:
            return f"{kind}"
    return "⏎".join(found) or None


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Parts of a sequence in tokenizer.json, one after another."""
    if not isinstance(part, dict):
        return []
    inner = part.get("pretokenizers") or part.get("normalizers") or part.get("decoders")
    return [step for one in inner for step in _steps(one)] if isinstance(inner, list) else [part]


def _byte_level(data: dict[str, Any]) -> bool:
    return any(step.get("type") == "ByteLevel" for step in _steps(data.get("pre_tokenizer")))


def _bytes_bpe(data: dict[str, Any], size: int) -> Vocabulary:
    made = _empty("gpt2", pre_tokenizer(data), size, scores=False)
    for token, at in data["model"]["vocab"].items():
        _put(made, at, token, NORMAL, 0.0)
    _add_added(made, data)
    if any(step.get("type") in ("NFC", "NFKC", "NFD", "NFKD") for step in _steps(data.get("normalizer"))):
        made.notes.append("The tokenizer brings letters with accents into one form first, which llama.cpp does not; texts "
                          "that are in that form already, as nearly all are, give the same tokens.")
    return made


def _pieces_bpe(data: dict[str, Any], size: int) -> Vocabulary:
    """SentencePiece BPE from tokenizer.json alone. What is merged first has the highest score, as in SentencePiece."""
    made = _empty("llama", "default", size)
    ranks: dict[str, int] = {}
    for number, pair in enumerate(data["model"].get("merges") or []):
        left, right = pair if isinstance(pair, list) else pair.split(" ", 1)
        ranks.setdefault(left + right, number)
    unknown = data["model"].get("unk_token")
    for token, at in data["model"]["vocab"].items():
        if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token):
            _put(made, at, token, BYTE, 0.0)
        elif token == unknown:
            _put(made, at, token, UNKNOWN, 0.0)
        else:
            _put(made, at, token, NORMAL, -float(ranks.get(token, len(ranks))))
    _add_added(made, data, unknown)
    made.flags["add_space_prefix"] = _space_first(data)
    return made


def _sentencepiece(folder: Path, data: dict[str, Any], size: int) -> Vocabulary:
    """From tokenizer.model, SentencePiece's own file."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    try:
        proto.ParseFromString((folder / "tokenizer.model").read_bytes())
    except Exception as err:  # protobuf raises its own kinds
        raise StudioError(f"{folder.name}/tokenizer.model is broken.", "Download the model again.", "model") from err
    unigram = proto.trainer_spec.model_type == pb.TrainerSpec.UNIGRAM
    made = _empty("t5" if unigram else "llama", "default", size)
    kinds = {2: UNKNOWN, 3: CONTROL, 4: USER, 5: UNUSED, 6: BYTE}  # SentencePiece's numbers
    for at, piece in enumerate(proto.pieces):
        kind = kinds.get(piece.type, NORMAL)
        _put(made, at, piece.piece, NORMAL if kind == USER else kind, piece.score)
    _add_added(made, data)
    config = modelinfo._json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    for at, token in (config.get("added_tokens_decoder") or {}).items():
        if str(at).isdecimal() and isinstance(token, dict):
            _mark(made, int(at), str(token.get("content")), bool(token.get("special")))
    made.flags["add_space_prefix"] = _space_first(data) if data else bool(proto.normalizer_spec.add_dummy_prefix)
    if unigram:
        made.charsmap = proto.normalizer_spec.precompiled_charsmap
        made.flags["remove_extra_whitespaces"] = bool(proto.normalizer_spec.remove_extra_whitespaces)
    return made


def _unigram(data: dict[str, Any], size: int) -> Vocabulary:
    made = _empty("t5", "default", size)
    unknown = data["model"].get("unk_id")
    for at, (token, score) in enumerate(data["model"]["vocab"]):
        byte = re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token)
        _put(made, at, token, UNKNOWN if at == unknown else BYTE if byte else NORMAL, float(score))
    _add_added(made, data)
    made.flags["add_space_prefix"] = _space_first(data)
    steps = _steps(data.get("normalizer"))
    made.flags["remove_extra_whitespaces"] = any(
        step.get("type") == "Replace" and (step.get("pattern") or {}).get("Regex") == " {2,}" for step in steps)
    for step in steps:
        if step.get("type") == "Precompiled" and step.get("precompiled_charsmap"):
            made.charsmap = base64.b64decode(step["precompiled_charsmap"])
    return made


def _space_first(data: dict[str, Any]) -> bool:
    """A space is put in front of a text before it is cut into pieces."""
    for step in _steps(data.get("normalizer")):
        if step.get("type") == "Prepend":
            return True
    for step in _steps(data.get("pre_tokenizer")):
        if step.get("type") == "Metaspace":
            return step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never") != "never"
    return False


def _spaced(made: Vocabulary, data: dict[str, Any], folder: Path) -> Vocabulary:
    """Newer tokenizers put a space in front of the first word only; llama.cpp does so after every special token, or never.

    Chats begin with a special token, so never is right for them; without a chat template the space is kept.
    """
    first = any(step.get("prepend_scheme") == "first" for step in _steps(data.get("pre_tokenizer")))
    if first and made.flags.get("add_space_prefix"):
        config = modelinfo._json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
        chats = (folder / "chat_template.jinja").is_file() or bool(config.get("chat_template"))
        made.flags["add_space_prefix"] = not chats
        made.notes.append("The tokenizer puts a space in front of a text's first word; llama.cpp reads chats, which begin with a "
                          "special token, alike, and a bare text without that space." if chats else
                          "The tokenizer puts a space in front of a text's first word; llama.cpp also puts one after every "
                          "special token.")
    return made


def _empty(model: str, pre: str, size: int, scores: bool = True) -> Vocabulary:
    return Vocabulary(model, pre, [f"[PAD{at}]".encode() for at in range(size)], [UNUSED] * size,
                      [LOWEST] * size if scores else None)


def _put(made: Vocabulary, at: int, token: str, kind: int, score: float) -> None:
    if not 0 <= at < len(made.tokens):
        raise StudioError(f"The tokenizer has the token {at}, but the model only {len(made.tokens)} embeddings.",
                          "The tokenizer belongs to another model; save the right one with it.", "model")
    made.tokens[at], made.types[at] = token.encode("utf-8"), kind
    if made.scores is not None:
        made.scores[at] = score


def _mark(made: Vocabulary, at: int, token: str, control: bool) -> None:
    """An added token: matched whole before anything is split or merged."""
    if at >= len(made.tokens):
        return
    control = control or bool(_SPECIAL.fullmatch(token))
    _put(made, at, token if control else token.replace("\u2581", " "), CONTROL if control else USER, ADDED)


def _add_added(made: Vocabulary, data: dict[str, Any], unknown: str | None = None) -> None:
    for token in data.get("added_tokens") or []:
        _put_added = token.get("content") != unknown
        if _put_added:
            _mark(made, int(token["id"]), str(token["content"]), bool(token.get("special")))
