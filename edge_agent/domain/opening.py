"""Openings that no sample showed: a counter or a latch in the PLC saw them between two polls.

Theory of operation. Each step of the tally (`open_count`, or `opened_latch` going on) is one opening; each time the guard
is seen to have gone from closed to not closed consumes one, also when that happened while nobody looked. What remains is
`missed_opening`, for the journal.

    balance = steps of the tally − openings seen      > 0 when settled: missed · < 0 when settled: the PLC counts others

Contact and tally do not change in the same answer: the PLC copies them at different times, and they may live in
different requests. The balance is therefore settled only when everything has been read again at least `SETTLE_MS` (and
the debouncing) after the last change of either. While a guard flutters without end it is settled every `PATIENCE_MS`,
but for one opening that may be on its way.

The last tally and the balance are memory, put with every change: openings while the agent was down are found, and none
is told twice. Memory of a tally that was wired elsewhere is none. A tally that began anew (a restarted PLC) counts nothing, and is told as `counter_restarted`.

Source: the rule catalogue, G6 and the counters' rows (README, map of rules); the outside contract, `missed_opening`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from edge_agent.domain.counter import modulus_of, steps
from edge_agent.domain.evidence import readable
from edge_agent.domain.findings import Findings
from edge_agent.domain.guard import GuardWatch
from edge_agent.domain.kleene import Tri
from edge_agent.domain.node import Node
from edge_agent.domain.occurrence import NS_PER_US
from edge_agent.domain.plan import SignalPlan
from edge_agent.domain.quality import Supply, trusted_until
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_MS, MonoNs
from edge_agent.wire.event import Json, Observation
from edge_agent.wire.structure import MisfitError, plain, structure

OPENING_KEY_PREFIX: Final = "opening/"
"""Memory keys of tallies begin so."""

SETTLE_MS: Final = 1000
"""Contact and tally agree this long after a change: ten scans of a slow PLC, and its copy to the Modbus image."""

PATIENCE_MS: Final = 60_000
"""A guard that flutters without end is settled this often."""

TALLIES: Final = ("open_count", "opened_latch")
"""Signals of a guard that tally its openings, the better one first."""

COUNTER: Final = "counter"
LATCH: Final = "latch"


@dataclass(frozen=True, slots=True)
class _Memory:
    """The tally as last read (`tally` None: never), what is not settled, and when: `at` as a label, `at_us` in `boot`.

    `wired` is what it was read from: another counter has another count.
    """

    source: str
    wired: str
    tally: int | None
    closed: bool | None
    balance: int
    since: str | None
    at: str
    at_us: int
    boot: str


class OpeningTally(Node):
    """Compares one guard's openings with what its PLC has tallied."""

    __slots__ = (
        "_active_at",
        "_busy_from",
        "_findings",
        "_guard",
        "_inputs",
        "_is_reading",
        "_kept",
        "_settle_ns",
        "_silent_from",
        "_source",
        "_tally",
    )

    def __init__(self, guard: GuardWatch, tally: Signal, findings: Findings, memory: Json) -> None:
        self._guard = guard
        self._tally = tally
        self._inputs = (*guard.channels, tally)
        super().__init__()
        self._source = LATCH if tally.plan.is_bit or tally.plan.coding.true_when else COUNTER
        self._findings = findings
        debounce_ms = max(
            max(item.plan.coding.debounce_on_ms, item.plan.coding.debounce_off_ms) for item in self._inputs
        )
        self._settle_ns = (SETTLE_MS + debounce_ms) * NS_PER_MS
        kept = _recalled(memory)
        wired = _wiring(tally.plan)
        if kept is None or (kept.source, kept.wired) != (self._source, wired):
            kept = _Memory(self._source, wired, None, None, 0, None, findings.start, 0, "")
        self._kept = kept
        self._is_reading = False
        self._silent_from = MonoNs(kept.at_us * NS_PER_US) if kept.boot == findings.boot else None
        self._active_at: MonoNs | None = None
        self._busy_from = MonoNs(0)
        if kept.balance:
            self._act(findings.wall.mono)

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """The guard's channels and the tally."""
        return self._inputs

    @property
    def key(self) -> str:
        """Its memory key."""
        return OPENING_KEY_PREFIX + self._guard.path

    def step(self, now: MonoNs, *, sampled: bool) -> bool:  # noqa: ARG002 — what it waits for is told by the blocks
        """Take what is new, and settle what has come to rest."""
        before = self._kept
        value, closed = self._tally.value, self._guard.closed
        tally = None if value is None or isinstance(value, str) else int(value)
        taken = 0 if tally is None else self._taken(tally, closed, now)
        seen = before.closed is True and closed is False
        if taken or seen:
            self._act(now)
        self._keep(before, tally, closed, before.balance + taken - seen, now)
        if taken > 0 and self._kept.since is None:
            self._keep_since(before)
        self._settle(now)
        if self._kept is not before:
            self._findings.remember(self.key, plain(self._kept))
        self.watching = self._active_at is not None
        if self._is_reading and tally is None:
            self._silent_from = trusted_until([self._tally.block], now)
        self._is_reading = tally is not None
        return False

    @property
    def _read_at(self) -> MonoNs | None:
        """When the tally was read before, as what it was; None when nobody knows (another boot)."""
        return self._tally.block.read_before if self._is_reading else self._silent_from

    def _act(self, now: MonoNs) -> None:
        if self._active_at is None:
            self._busy_from = now
        self._active_at = now

    def _taken(self, tally: int, closed: Tri, now: MonoNs) -> int:
        """Openings that the tally has taken since it was last read; a baseline takes none.

        A latch that is cleared while the guard stands open goes on again, though nothing has been opened.
        """
        kept = self._kept
        if kept.tally is None or tally == kept.tally:
            return 0
        if self._source == LATCH:
            stands_open = kept.closed is False and closed is False
            return 1 if tally and not stands_open else 0
        read_at = self._read_at
        elapsed_ns = None if read_at is None else now - read_at
        taken = steps(kept.tally, tally, modulus_of(self._tally.plan), elapsed_ns)
        if taken is not None:
            return taken
        detail: dict[str, Json] = {
            "machine": self._guard.plan.machine,
            "guard": self._guard.plan.id,
            "signal": self._tally.plan.name,
            "was": readable(kept.tally),
            "now": readable(tally),
        }
        self._findings.note(now, Observation("counter_restarted", detail))
        return max(0, -kept.balance)  # what was seen and not yet counted never will be

    def _keep(self, before: _Memory, tally: int | None, closed: Tri, balance: int, now: MonoNs) -> None:
        tally = before.tally if tally is None else tally
        closed = before.closed if closed is None else closed
        if (tally, closed, balance) != (before.tally, before.closed, before.balance):
            label = self._findings.label(now)
            self._kept = _Memory(
                self._source,
                before.wired,
                tally,
                closed,
                balance,
                before.since,
                label,
                now // NS_PER_US,
                self._findings.boot,
            )

    def _keep_since(self, before: _Memory) -> None:
        """When the tally was last read as it had been: before this answer in this run, else when it was kept."""
        read_at = self._read_at
        since = before.at if read_at is None else self._findings.label(read_at)
        self._kept = _with(self._kept, balance=self._kept.balance, since=since)

    def _settle(self, now: MonoNs) -> None:
        active_at, balance = self._active_at, self._kept.balance
        if active_at is None:
            return
        calm_at = active_at + self._settle_ns
        is_read = all(block.supply is Supply.GOOD and block.requested_at >= calm_at for block in self.blocks)
        if is_read and all(signal.is_good for signal in self._inputs):
            self._active_at = None
            if balance > 0:
                self._tell(balance, now)
            if balance or self._kept.since is not None:
                self._kept = _with(self._kept, balance=0, since=None)
        elif now - self._busy_from >= PATIENCE_MS * NS_PER_MS:
            self._busy_from = now
            if balance > 1:
                self._tell(balance - 1, now)
                self._kept = _with(self._kept, balance=1, since=self._kept.at)

    def _tell(self, count: int, now: MonoNs) -> None:
        detail: dict[str, Json] = {
            "machine": self._guard.plan.machine,
            "guard": self._guard.plan.id,
            "count": count,
            "source": self._source,
            "since": self._kept.since or self._kept.at,
            "until": self._kept.at,
        }
        self._findings.note(now, Observation("missed_opening", detail))


def _with(kept: _Memory, *, balance: int, since: str | None) -> _Memory:
    return _Memory(
        kept.source, kept.wired, kept.tally, kept.closed, balance, since, kept.at, kept.at_us, kept.boot
    )


def _wiring(tally: SignalPlan) -> str:
    coding = tally.coding
    order = f"{coding.word_order} {coding.byte_order} {coding.mask}"
    return f"{tally.device}/{tally.table}/{tally.number}.{tally.bit} {tally.type} {order}"


def _recalled(memory: Json) -> _Memory | None:
    try:
        return cast("_Memory", structure(_Memory, memory, "memory"))
    except MisfitError:
        return None
