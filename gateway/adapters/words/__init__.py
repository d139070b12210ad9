"""The words of messages, one flat JSON catalogue a language, packaged beside this module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files

from gateway.domain.message import Words
from gateway.domain.notify import Language


def load_words() -> Mapping[Language, Words]:
    """Every language's catalogue. Raises `OSError` or `ValueError` for a broken installation only."""
    folder = files(__package__)
    return {
        language: json.loads((folder / f"{language}.json").read_text(encoding="utf-8"))
        for language in Language
    }
