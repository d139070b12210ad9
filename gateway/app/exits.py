"""How a verb ends, and how it speaks: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import TypeVar

from edge_agent.wire.event import Json
from edge_agent.wire.pace import paced
from gateway.adapters.clock_system import SystemClock

T = TypeVar("T")


class Exit(IntEnum):
    """Exit codes of every verb (the outside contract, section 1)."""

    OK = 0
    FAILED = 1
    REFUSED = 2
    INTERRUPTED = 130


def say(line: str) -> None:
    """Data: one line on stdout."""
    print(line)  # noqa: T201 - a verb's output


def say_json(document: Json) -> None:
    """Data: one JSON document on stdout, one line."""
    say(json.dumps(document, ensure_ascii=False))


def complain(lines: Iterable[object]) -> None:
    """Everything that is not data: lines on stderr."""
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201 - what a person mends is no log line


def refuse(*lines: object) -> Exit:
    """Say what is wrong with usage or configuration."""
    complain(lines)
    return Exit.REFUSED


def fail(*lines: object) -> Exit:
    """Say what did not work."""
    complain(lines)
    return Exit.FAILED


def show_progress(items: Iterable[T], total: int) -> Iterator[T]:
    """The items, and on stderr how far they have been taken: one line that is rewritten, its end kept."""
    clock = SystemClock()

    def tell(line: str) -> None:
        print(f"\r{line}", end="", file=sys.stderr, flush=True)  # noqa: T201 - for people, beside the data

    try:
        yield from paced(items, total, clock.monotonic_ms, tell)
    finally:
        print(file=sys.stderr)  # noqa: T201 - as above
