"""One guard: its displayed state, recorded when it changes.

    closed unknown ─▶ unknown                  closed = AND(channels), three-valued
    not closed ─────▶ fault  (a discrepancy is held or latched)   else open
    closed ─────────▶ fault  (a discrepancy is latched)
                      bypassed (bypass on) · unknown (bypass wired and unknown)
                      closed_locked (locked)   else closed

`unknown` is never shown or scored as closed. The first known state of a run is compared with the memory: equal says
nothing, different is a change that nobody saw (`changed_during_gap`). The same after a gap of more than 2 s without
data: what happened in it is not known, so no edge is inferred from it.

Source: the outside contract, section 2 ("Guard state"); the rule catalogue, G6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

from edge_agent.domain.findings import Findings, GuardView
from edge_agent.domain.kleene import Tri, all_of
from edge_agent.domain.node import Node
from edge_agent.domain.plan import GuardPlan
from edge_agent.domain.quality import trusted_until, worst
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_S, MonoNs
from edge_agent.wire.event import GuardChanged, GuardState, Json, Observation, Quality
from edge_agent.wire.structure import MisfitError, plain, structure

GUARD_KEY_PREFIX = "guard/"
"""Memory keys of guards begin so."""

BLIND_GAP_MAX_NS = 2 * NS_PER_S
"""After a longer gap no edge is inferred (G6)."""


def guard_state(
    closed: Tri, bypass: Tri, locked: Tri, *, is_discrepant: bool, has_bypass: bool
) -> GuardState:
    """The table above; `is_discrepant` while a discrepancy is held or latched."""
    if closed is None:
        return GuardState.UNKNOWN
    if is_discrepant:
        return GuardState.FAULT
    if not closed:
        return GuardState.OPEN
    if bypass:
        return GuardState.BYPASSED
    if has_bypass and bypass is None:
        return GuardState.UNKNOWN
    return GuardState.CLOSED_LOCKED if locked else GuardState.CLOSED


class Discrepancy(Protocol):
    """What a guard asks its channel-discrepancy rule (R09)."""

    @property
    def is_open(self) -> bool:
        """Whether a discrepancy is held or latched."""
        ...

    @property
    def is_mismatched(self) -> bool:
        """Whether the channels contradict each other now."""
        ...


@dataclass(frozen=True, slots=True)
class _Memory:
    """What was last told of a guard. `known` is its last known state, which outlives an unknown one."""

    state: GuardState
    bypass: bool | None
    locked: bool | None
    quality: Quality
    known: GuardState | None
    since: str


class GuardWatch(Node):
    """Watches one guard; its rules (`judges`) read `closed`."""

    __slots__ = (
        "_blind_from",
        "_bypass_signal",
        "_discrepancy",
        "_findings",
        "_is_first",
        "_locked_signal",
        "_told",
        "bypass",
        "channels",
        "closed",
        "judges",
        "plan",
    )

    def __init__(
        self,
        plan: GuardPlan,
        channels: tuple[Signal, ...],
        *,
        locked: Signal | None,
        bypass: Signal | None,
        discrepancy: Discrepancy | None,
        findings: Findings,
        memory: Json,
    ) -> None:
        self.plan = plan
        self.channels = channels
        self._locked_signal, self._bypass_signal = locked, bypass
        super().__init__()
        self.judges: tuple[Node, ...] = ()
        self.closed: Tri = None
        self.bypass: Tri = None
        self._discrepancy = discrepancy
        self._findings = findings
        self._told = _recalled(memory)
        self._blind_from: MonoNs | None = None
        self._is_first = True

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """What its state is made of: the channels, the lock, the bypass."""
        others = (self._locked_signal, self._bypass_signal)
        return (*self.channels, *(signal for signal in others if signal is not None))

    @property
    def path(self) -> str:
        """`machine/guard`."""
        return self.plan.path

    @property
    def open_channels(self) -> tuple[Signal, ...]:
        """The channels that say so where it is not closed: each proves it by itself."""
        return tuple(channel for channel in self.channels if channel.truth is False)

    @property
    def opened_at(self) -> MonoNs | None:
        """From when its not being closed counts; None while no channel says so."""
        times = [item.since for item in self.open_channels if item.since is not None]
        return min(times, default=None)

    @property
    def judged_by(self) -> tuple[Signal, ...]:
        """Everything that its state and its rules read."""
        read = (*self.inputs, *(signal for rule in self.judges for signal in rule.inputs))
        return tuple(dict.fromkeys(read))

    @property
    def view(self) -> GuardView:
        """How it is to be shown now."""
        told = self._told
        if told is None or self._is_first:
            told = _Memory(GuardState.UNKNOWN, None, None, Quality.STALE, None, self._findings.start)
        return self._shown(told)

    def step(self, now: MonoNs, *, sampled: bool) -> bool:  # noqa: ARG002 — it goes unknown without a sample
        """Judge its state anew; its rules step when `closed` or `bypass` changed (they read the same signals)."""
        self.closed = all_of(channel.truth for channel in self.channels)
        self.bypass = None if self._bypass_signal is None else self._bypass_signal.truth
        if self.is_pending:
            return False
        locked = None if self._locked_signal is None else self._locked_signal.truth
        state = guard_state(
            self.closed,
            self.bypass,
            locked,
            is_discrepant=self._discrepancy is not None and self._discrepancy.is_open,
            has_bypass=self._bypass_signal is not None,
        )
        self._show(state, locked, now)
        return False

    def _quality(self) -> Quality:
        quality = worst(signal.quality for signal in self.inputs)
        disputed = (
            self._discrepancy is not None and self._discrepancy.is_open and self._discrepancy.is_mismatched
        )
        return worst((quality, Quality.CONFLICT)) if disputed else quality

    def _shown(self, told: _Memory) -> GuardView:
        plan = self.plan
        return GuardView(
            plan.machine,
            plan.id,
            told.state,
            told.bypass,
            told.locked,
            told.quality,
            told.since,
            plan.stale_ms,
        )

    def _show(self, state: GuardState, locked: Tri, now: MonoNs) -> None:
        told, seen = self._told, (state, self.bypass, locked, self._quality())
        is_told = told is not None and (told.state, told.bypass, told.locked, told.quality) == seen
        if not is_told:
            self._tell(*seen, now)
        if (self._is_first or not is_told) and self._told is not None:
            self._findings.publish(self._shown(self._told))
        self._note_blindness(state, now)
        self._is_first = False

    def _tell(self, state: GuardState, bypass: Tri, locked: Tri, quality: Quality, now: MonoNs) -> None:
        told, path = self._told, self.plan
        known = None if told is None else told.known
        if state is not GuardState.UNKNOWN:
            if known is not None and known is not state and self._is_after_gap(now):
                detail: dict[str, Json] = {
                    "machine": path.machine,
                    "guard": path.id,
                    "was": known.value,
                    "state": state.value,
                }
                self._findings.note(now, Observation("changed_during_gap", detail))
            known = state
        was = None if told is None else told.state
        self._findings.note(now, GuardChanged(path.machine, path.id, state, was, bypass, locked, quality))
        since = told.since if told is not None and was is state else self._findings.label(now)
        self._told = _Memory(state, bypass, locked, quality, known, since)
        self._findings.remember(GUARD_KEY_PREFIX + path.path, plain(self._told))

    def _is_after_gap(self, now: MonoNs) -> bool:
        """Whether this is the first look of the run, or the state was unknown for too long to infer an edge."""
        if self._is_first:
            return True
        return self._blind_from is not None and now - self._blind_from > BLIND_GAP_MAX_NS

    def _note_blindness(self, state: GuardState, now: MonoNs) -> None:
        if state is not GuardState.UNKNOWN:
            self._blind_from = None
        elif self._blind_from is None:
            self._blind_from = trusted_until(self.blocks, now)


def _recalled(memory: Json) -> _Memory | None:
    try:
        return cast("_Memory", structure(_Memory, memory, "memory"))
    except MisfitError:
        return None
