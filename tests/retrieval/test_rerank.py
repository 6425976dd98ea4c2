"""The second look at what was found: diverse, by a language model, by a cross-encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.retrieval import index, rerank


@pytest.fixture(autouse=True)
def _home(home: Path) -> None:
    """Every test here has a workspace of its own."""


def indexed(folder: Path, texts: list[str]) -> index.Index:
    folder.mkdir()
    index.build([{"id": i, "text": text, "flags": []} for i, text in enumerate(texts)], folder)
    return index.Index(folder)


def test_a_second_look(tmp_path: Path) -> None:
    texts = ["Anna bakes bread.", "Anna bakes bread!", "Anna bakes bread?", "Ben buys bread."]
    made = indexed(tmp_path / "i", texts)
    hits = made.search("bread Anna")
    order = [hit["chunk"] for hit in rerank.again(hits, "bread", made, "diverse")]
    assert order.index(3) == 1, "what says the same thing again comes later"
    with pytest.raises(StudioError, match="second look"):
        rerank.again(hits, "bread", made, "cross")
    likely = rerank.again(hits, "What does Ben buy?", made, "likelihood", "starter")
    assert {hit["chunk"] for hit in likely} == {hit["chunk"] for hit in hits} and all("before" in hit for hit in likely)
    with pytest.raises(StudioError, match="cross-encoder"):
        rerank.again(hits, "bread", made, "cross", "starter")


def test_a_cross_encoder_from_a_folder_decides_the_order(tmp_path: Path) -> None:
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate("[PAD] [UNK] [CLS] [SEP] anna ben bakes buys bread . ? what".split())}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder = tmp_path / "cross"
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]").save_pretrained(folder)
    torch.manual_seed(0)
    net = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                                             intermediate_size=16, max_position_embeddings=64, num_labels=1))
    net.save_pretrained(folder)
    texts = ["anna bakes bread .", "ben buys bread .", "bread ."]
    scores = rerank.cross(str(folder), "what bread ?", texts)
    made = indexed(tmp_path / "i", texts)
    order = [hit["chunk"] for hit in rerank.again(made.search("bread"), "what bread ?", made, "cross", str(folder))]
    assert order == sorted(range(3), key=lambda i: -scores[i]) and len(set(scores)) == 3
    assert json.dumps(scores)
