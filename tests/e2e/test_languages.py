"""The page in other languages: asked for by the browser, changed in the header, and every tab within reach."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from components.languages import core_texts  # noqa: E402
from components.strings import catalogue, translations  # noqa: E402

WIDTHS = ((1440, 900), (390, 844))


@pytest.mark.timeout(600)
def test_russian_and_chinese_pages_and_back_to_english(server, browser):
    for asked, language in (("ru-RU", "ru"), ("zh-TW", "zh-Hant")):
        words = catalogue(language)
        for width, height in WIDTHS:
            context = browser.new_context(locale=asked, viewport={"width": width, "height": height}, reduced_motion="reduce")
            page, errors = context.new_page(), []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.goto(server.url, timeout=120_000)
            expect(page.locator("html")).to_have_attribute("lang", re.compile(language[:2]))
            expect(page.locator("#tab-finetune-button")).to_have_attribute("aria-selected", "true", timeout=60_000)
            for tab in ("data", "pretrain", "finetune", "align", "merge", "quantize", "chat", "eval", "runs", "library"):
                page.locator(f"#tab-{tab}-button").click()
                expect(page.locator(f"#tab-{tab}-button")).to_have_attribute("aria-selected", "true")
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (language, tab, width)
            page.locator("#tab-finetune-button").click()
            expect(page.locator("#finetune-body h1").first).to_have_text(words["finetune.title"])
            expect(page.locator("#finetune-start")).to_have_text(words["finetune.start"])
            label = page.locator("#finetune-learning_rate").first
            expect(label).to_contain_text(translations(language)["Learning rate"])
            assert not errors
            if width > 1000:
                page.locator(".st-language").select_option("en")
                expect(page.locator("html")).to_have_attribute("lang", "en", timeout=60_000)
                expect(page.locator("#finetune-start")).to_have_text(catalogue()["finetune.start"], timeout=60_000)
                page.reload()
                expect(page.locator("html")).to_have_attribute("lang", "en")
            context.close()


def test_hardly_any_english_is_left_in_translated_forms():
    """Titles and helps of fields hold letters of the language; names such as LoRA stay as they are."""
    for language, letters in (("ru", "[а-яё]"), ("zh-Hant", "[一-鿿]")):
        said = translations(language)
        long = [text for text in core_texts() if len(text.split()) > 3]
        left = [text for text in long if text in said and not re.search(letters, said[text], re.I)]
        assert len(left) <= 3, (language, left[:5])  # long names of methods
