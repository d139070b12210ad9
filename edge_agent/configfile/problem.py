"""One thing wrong with a configuration file, said so that somebody can mend it without reading code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong at `file`:`line`:`col` (counted from 1), and how to mend it."""

    file: str
    line: int
    col: int
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}: {self.what} — {self.mend}"


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """The problems in reading order, each once."""
    return sorted(set(problems))
