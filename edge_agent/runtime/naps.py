"""Naps of many tasks: one timer for all that end in the same millisecond.

A thousand connections nap ten thousand times a second, each with a timer of its own if it slept by itself; and who wakes
together is served together, with one look at the sockets. Event loops count in milliseconds anyway.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

_FRACTION_MS: Final = 1e-3
"""A time this little after a whole millisecond is that millisecond: it was summed up of fractions."""


class Naps:
    """Of one event loop, which runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._napping: dict[int, list[asyncio.Future[None]]] = {}

    def nap(self, wait_ms: int) -> asyncio.Future[None]:
        """To be awaited: done in `wait_ms`, less than a millisecond late."""
        loop = self._loop
        end_ms = math.ceil(loop.time() * 1000 - _FRACTION_MS) + wait_ms
        napping = self._napping.get(end_ms)
        if napping is None:
            napping = self._napping[end_ms] = []
            loop.call_at(end_ms / 1000, self._wake, end_ms)
        nap = loop.create_future()
        napping.append(nap)
        return nap

    def _wake(self, end_ms: int) -> None:
        for nap in self._napping.pop(end_ms):
            if not nap.done():  # else who slept was cancelled
                nap.set_result(None)
