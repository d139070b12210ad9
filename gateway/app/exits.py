"""How a verb ends, and how it speaks: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from enum import IntEnum

from edge_agent.wire.event import Json


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
