"""What an agent could see: spans of the served reads in which nothing was hidden from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.simulation.fieldbus import Served
from tests.simulation.ward import MS, Ward

WAIT_NS: Final = 0
"""How long a finding that found no room is tried again by itself, before it counts as lost."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_ns` to `end_ns`, virtual time."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class View:
    """What an agent that ran, and could write, saw of a device without losing sight of it.

    In each `clean` span every read was good; a failed one in between interrupts a proof, and does not undo it.
    """

    clean: tuple[Span, ...]

    @property
    def end_ns(self) -> int:
        """When sight was lost."""
        return self.clean[-1].end_ns

    def proven_at(self, real: Span, need_ns: int) -> int | None:
        """When what really holds throughout `real` has been seen for `need_ns` in all, None if never."""
        for span in self.clean:
            start, end = max(span.start_ns, real.start_ns), min(span.end_ns, real.end_ns)
            if end - start >= need_ns:
                return start + need_ns
            need_ns -= max(0, end - start)
        return None


class _Watcher:
    """Follows the reads of one device and cuts them into views."""

    def __init__(self, blocks: frozenset[int], lost_ns: int) -> None:
        self.views: list[View] = []
        self._blocks = blocks
        self._lost_ns = lost_ns
        self._missing = set(blocks)
        self._clean: list[Span] = []
        self._start_ns: int | None = None
        self._last_ns: int | None = None

    def take(self, read: Served) -> None:
        """One more read, good and live or failed."""
        if self._last_ns is not None and read.ended_ns - self._last_ns > self._lost_ns:
            self.lose()
        if read.plain is None:
            self._interrupt()
            self._missing = set(
                self._blocks
            )  # a silent device is not asked for its other blocks in that poll
            return
        self._missing.discard(read.block)
        if not self._missing and self._start_ns is None:
            self._start_ns = read.ended_ns
        self._last_ns = read.requested_ns

    def lose(self) -> None:
        """Sight is lost: what comes next is another view."""
        self._interrupt()
        if self._clean:
            self.views.append(View(tuple(self._clean)))
        self._clean, self._last_ns, self._missing = [], None, set(self._blocks)

    def _interrupt(self) -> None:
        if self._start_ns is not None and self._last_ns is not None:
            self._clean.append(Span(self._start_ns, max(self._start_ns, self._last_ns)))
        self._start_ns = None


def views_of(ward: Ward, device: str) -> list[View]:
    """Every view of one device, in order of time."""
    plan = ward.plan.devices[device]  # type: ignore[index]
    watcher = _Watcher(frozenset(plan.blocks), plan.stale_ms * MS * 3 // 4)
    births = sorted(born for born, _ in (*ward.node.lives, (ward.node.born_ns, 0)))
    for read in ward.served.of(device):
        is_unwritten = ward.is_unwritten(read.ended_ns - WAIT_NS, read.ended_ns)
        is_reborn = bool(births) and births[0] <= read.requested_ns
        while births and births[0] <= read.requested_ns:
            births.pop(0)
        if is_unwritten or is_reborn or (read.is_good and read.plain is None):
            watcher.lose()
        if not is_unwritten and (read.plain is not None or not read.is_good):
            watcher.take(read)
    watcher.lose()
    return watcher.views
