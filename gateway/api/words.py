"""The texts of the plain pages: the same two flat catalogues that the board uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import cast

LANGUAGES = ("zh", "en")


class Words:
    """Texts of one language. A missing key is a programming error, which a test finds first."""

    def __init__(self, language: str) -> None:
        self.language = language
        text = (files("gateway.api") / "board" / "words" / f"{language}.json").read_text("utf-8")
        self._texts = cast("Mapping[str, str]", json.loads(text))

    @property
    def html_lang(self) -> str:
        """For `<html lang>`."""
        return "zh-CN" if self.language == "zh" else "en"

    def text(self, key: str, **values: object) -> str:
        """The text of `key`, its `{names}` filled in."""
        return self._texts[key].format(**values) if values else self._texts[key]

    def rule(self, rule: str) -> str:
        """A rule's name; a rule of a younger version goes by its id."""
        return self._texts.get(f"rule.{rule}", rule)

    def label(self, labels: object, fallback: str) -> str:
        """A thing's name in this language."""
        if isinstance(labels, Mapping):
            return str(labels.get(self.language) or labels.get("en") or fallback)
        return fallback


WORDS: Mapping[str, Words] = {language: Words(language) for language in LANGUAGES}
"""Both catalogues, read once."""
