"""What a stand-in answered, for whoever must know the truth afterwards: tests, auditors, benches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Served:
    """One request and what it got: bits or words, an exception code, or (both null) silence.

    `mono_ms` is the machine's CLOCK_MONOTONIC in milliseconds, comparable between processes of one boot.
    """

    mono_ms: float
    unit: int
    fc: int
    address: int
    count: int
    values: list[int] | None
    exception: int | None


ServedLog = Callable[[Served], None]


def json_lines_log(file: TextIO) -> ServedLog:
    """A log that writes each served response to `file` as one JSON line, flushed, for another process to read."""

    def write(served: Served) -> None:
        file.write(json.dumps(asdict(served), separators=(",", ":")) + "\n")
        file.flush()

    return write
