"""Heads leave the box: every so often what the record has come to is signed and written where it cannot be rewritten.

Whoever changes the journal afterwards, cuts its end or puts an older copy back, contradicts a head. A head that cannot
be written now is written as soon as that is possible again; meanwhile `problem` says so, for readiness.

Source: reliability invariant I-22 (every so many hours a signed head leaves the box).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from edge_agent.wire.heads import Head, head_line
from gateway.ports import JournalUnavailable

RETRY_S = 60.0
"""Between two tries of a head that is due: a mount comes back within minutes, or somebody is told by readiness."""


class HeadsNotWritten(Exception):  # noqa: N818 - a state of the sink, as the ports' own
    """The place for heads cannot be written; the text says why."""


class HeadSink(Protocol):
    """A place for heads."""

    def append(self, lines: Sequence[str]) -> None:
        """Keep these lines for good (blocking). Raises `HeadsNotWritten`."""
        ...


class HeadShipping:
    """Writes heads every `every_h` hours, the first at once. `make` may raise `JournalUnavailable`, and blocks."""

    def __init__(self, make: Callable[[], Sequence[Head]], sink: HeadSink, every_h: int) -> None:
        self._make = make
        self._sink = sink
        self._every_s = every_h * 3600.0
        self.problem: str | None = "none written yet"

    async def run(self) -> NoReturn:
        """Ship for ever."""
        while True:
            try:
                await asyncio.to_thread(self._ship)
            except (JournalUnavailable, HeadsNotWritten) as error:
                self.problem = str(error)
                await asyncio.sleep(RETRY_S)
                continue
            self.problem = None
            await asyncio.sleep(self._every_s)

    def _ship(self) -> None:
        self._sink.append([head_line(head) for head in self._make()])
