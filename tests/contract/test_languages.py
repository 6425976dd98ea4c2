"""Every language says everything, and nothing that is not there; the browser gets the one it asks for."""

from __future__ import annotations

import json

import pytest

from components import languages, strings


@pytest.mark.parametrize("language", strings.languages()[1:])
def test_a_language_is_whole(language):
    lacking = languages.lacks(language)
    assert {name: found[:5] for name, found in lacking.items() if found} == {}, f"python -m components.languages {language}"


@pytest.mark.parametrize("language", strings.languages()[1:])
def test_no_words_stay_empty(language):
    assert all(text.strip() for text in (strings.catalogue(language) | strings.translations(language)).values())


@pytest.mark.parametrize(("header", "cookie", "language"), [
    ("", "", "en"), ("en-US,en;q=0.9", "", "en"), ("de-DE,de;q=0.9", "", "en"), ("ru-RU,ru;q=0.9,en;q=0.8", "", "ru"),
    ("de,ru;q=0.5", "", "ru"), ("en,ru;q=0.5", "", "en"), ("ru;q=0.1,en;q=0.5", "", "en"), ("zh-TW,zh;q=0.9", "", "zh-Hant"),
    ("zh-Hant-HK", "", "zh-Hant"), ("zh-CN,en;q=0.5", "", "en"), ("ru;q=0", "", "en"), ("en", "a=1; studio_language=ru", "ru"),
    ("ru", "studio_language=en", "en"), ("ru", "studio_language=xx", "ru"), (";;q=,-,=" * 200, "studio_language=", "en"),
    ("en", "not_studio_language=ru", "en")])
def test_the_language_that_is_asked_for(monkeypatch, header, cookie, language):
    monkeypatch.setattr(strings, "languages", lambda: ["en", "ru", "zh-Hant"])
    assert strings.asked(header, cookie) == language


def test_what_a_language_lacks_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(strings, "LOCALES", tmp_path)
    monkeypatch.setattr(languages, "core_texts", lambda: {"Learning rate": "sft", "Drop {n}": "sft"})
    for place, words in {"en/a.json": {"a.b": "One {name}", "a.c": "Two"}, "ru/a.json": {"a.b": "Раз", "a.d": "Три"},
                         "ru/core/sft.json": {"Learning rate": "Скорость", "Gone": "Нет"}}.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(json.dumps(words), "utf-8")
    strings.catalogue.cache_clear(), strings.translations.cache_clear()
    try:
        assert languages.lacks("ru") == {"keys": ["a.c"], "unused keys": ["a.d"], "texts": ["Drop {n}"], "unused texts": ["Gone"],
                                         "places": ["a.b"]}
    finally:
        strings.catalogue.cache_clear(), strings.translations.cache_clear()
