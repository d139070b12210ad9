"""Heads leave the box: every so often what the record has come to is signed and written where it cannot be rewritten.

Whoever changes the journal afterwards, cuts its end or puts an older copy back, contradicts a head. A head that cannot
be written now is written as soon as that is possible again; meanwhile `problem` says so, for readiness. A mount that
hangs takes its thread with it, but neither this loop nor the process: a restart would mend no mount.

Source: reliability invariant I-22 (every so many hours a signed head leaves the box).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, Protocol

from edge_agent.wire.heads import Head, head_line
from gateway.ports import JournalUnavailable
from gateway.services.pulse import NAP_S, Advance, unwatched, wait_alive

RETRY_S: Final = 60.0
"""Between two tries of a head that is due: a mount comes back within minutes, or somebody is told by readiness."""

HANGS_AFTER_S: Final = 10.0
"""A head that is not written after so long is told as late; it is waited for, and no second one begun beside it."""


class HeadsNotMade(Exception):  # noqa: N818 - as below
    """There is nothing to sign heads with; the text says why, and how to mend it."""


class HeadsNotWritten(Exception):  # noqa: N818 - a state of the sink, as the ports' own
    """The place for heads cannot be written; the text says why."""


class HeadSink(Protocol):
    """A place for heads."""

    def append(self, lines: Sequence[str]) -> None:
        """Keep these lines for good (blocking). Raises `HeadsNotWritten`."""
        ...


class HeadShipping:
    """Writes heads every `every_h` hours, the first at once. `make` may raise `JournalUnavailable` or `HeadsNotMade`, and blocks."""

    def __init__(self, make: Callable[[], Sequence[Head]], sink: HeadSink, every_h: int) -> None:
        self._make = make
        self._sink = sink
        self._every_s = every_h * 3600.0
        self.problem: str | None = "none written yet"

    async def run(self, advance: Advance = unwatched) -> NoReturn:
        """Ship for ever."""
        nothing_to_hear = asyncio.Event()
        while True:
            pause_s = self._every_s
            try:
                await self._ship_alive(advance)
                self.problem = None
            except (JournalUnavailable, HeadsNotMade, HeadsNotWritten) as error:
                self.problem, pause_s = str(error), RETRY_S
            await wait_alive(nothing_to_hear, pause_s, advance)

    async def _ship_alive(self, advance: Advance) -> None:
        """Ship once, and say meanwhile that the loop is alive, whatever its thread does."""
        shipping = asyncio.ensure_future(asyncio.to_thread(self._ship))
        late_s = asyncio.get_running_loop().time() + HANGS_AFTER_S
        try:
            while not (await asyncio.wait([shipping], timeout=NAP_S))[0]:
                advance()
                if asyncio.get_running_loop().time() >= late_s:
                    self.problem = "not written yet: their place or the journal's database hangs"
            shipping.result()
        finally:
            shipping.cancel()

    def _ship(self) -> None:
        self._sink.append([head_line(head) for head in self._make()])
