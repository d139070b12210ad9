"""The auditor: watches a run from outside and says which promise was broken.

It has a model of its own and shares none with the product: what is so comes from the plant's truth log and from the
logs of served reads; what was said comes from the bytes that were committed. It never asks a rule or an alarm what it
thinks. `look` is called every virtual second, `on_…` at each commit and ack, `conclude` once everything has healed;
`looks` holds what is judged meanwhile, `…_audit` what is judged at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from edge_agent.wire.codec import DecodeError, decode
from edge_agent.wire.event import Event, Position
from edge_agent.wire.status import decode_ack
from gateway.domain.journal import EdgeEvent, Entry, FindingRaised, GatewayRule
from simulators.cell import Cell
from tests.simulation import (
    act_audit,
    alarm_audit,
    gap_audit,
    historian_audit,
    looks,
    stream_audit,
    telling_audit,
    truth_audit,
    whole,
)
from tests.simulation.findings import Check, Finding
from tests.simulation.gateway_node import GatewayNode
from tests.simulation.network import SimBroker
from tests.simulation.virtual_loop import NS_PER_S
from tests.simulation.ward import Said, Ward

if TYPE_CHECKING:
    from tests.simulation.operators import Operators


class Auditor:
    """One run's. `findings` holds at most `FINDINGS_MAX` of each check: the first ones tell the story."""

    FINDINGS_MAX: Final = 5

    def __init__(
        self, wards: Sequence[Ward], gateway: GatewayNode, cell: Cell, broker: SimBroker, operators: Operators
    ) -> None:
        self.wards = list(wards)
        """Every agent that ever ran, clones at the end."""
        self.gateway = gateway
        self.cell = cell
        self.broker = broker
        self.operators = operators
        self.findings: list[Finding] = []
        self.journal_mishaps: list[int] = []
        self.entries: Sequence[Entry] = ()
        """The journal, read from the file when the run is concluded."""
        self.committed_ns: dict[int, int] = {}
        """When each position of the present journal was committed."""
        self.journal_full: list[tuple[int, int]] = []
        """When the gateway's disk took nothing."""
        self.tolerance_ns = 0
        self.is_receiver_good = True
        self._durable: set[Position] = set()
        self._reader: sqlite3.Connection | None = None

    @property
    def now_ns(self) -> int:
        """Virtual time."""
        return self.gateway.loop.now_ns

    @property
    def is_in_doubt(self) -> bool:
        """Whether the gateway believes that two agents share one identity: then it reconciles nothing for a while.

        Told from the journal as it lies there: a backup put in its place brings the doubts of its day back.
        """
        entries = self._read_journal()
        doubts = {
            entry.body.occurrence
            for entry in entries
            if isinstance(entry.body, FindingRaised) and entry.body.rule is GatewayRule.IDENTITY_CONFLICT
        }
        return not doubts.isdisjoint(alarm_audit.fold_open(entries))

    @property
    def said(self) -> Iterator[Said]:
        """Everything that any agent committed."""
        for ward in self.wards:
            yield from ward.said

    def find(self, check: Check, text: str) -> None:
        """A promise was broken."""
        if sum(finding.check is check for finding in self.findings) < self.FINDINGS_MAX:
            self.findings.append(Finding(check, self.now_ns / NS_PER_S, text))

    # what happens

    def on_gateway_commit(self, entries: Sequence[Entry]) -> None:
        """The gateway's journal has these on disk."""
        for entry in entries:
            self.committed_ns[entry.position] = self.now_ns

    def on_ack(self, topic: str, payload: bytes) -> None:
        """The gateway promises something: it must be in the file, as another reader sees it.

        What the journal has no place for any more lies in quarantine, byte for byte.
        """
        ack = decode_ack(payload)
        if isinstance(ack, DecodeError):
            self.find(Check.ACK_ONLY_AFTER_COMMIT, f"unreadable ack on {topic}: {payload[:80]!r}")
            return
        if ack.position is None or ack.position in self._durable:
            return
        key = (ack.position.epoch, ack.position.seq)
        held = self.rows("SELECT hash FROM journal WHERE epoch=? AND seq=?", *key)
        is_held = bool(held) and held[0][0] == ack.position.hash
        if not is_held and not self._is_in_quarantine(ack.position):
            self.find(Check.ACK_ONLY_AFTER_COMMIT, f"acked {ack.position}, the journal holds {held}")
        self._durable.add(ack.position)

    def _is_in_quarantine(self, position: Position) -> bool:
        payloads = self.rows("SELECT payload FROM quarantine")
        events = [decode(payload) for (payload,) in payloads if isinstance(payload, bytes)]
        return any(isinstance(event, Event) and event.position == position for event in events)

    def note_journal_replaced(self) -> None:
        """The gateway's journal was replaced by a backup, or deleted."""
        self.journal_mishaps.append(self.now_ns)
        self._durable.clear()
        self.close()

    def rows(self, query: str, *values: str | int) -> list[tuple[object, ...]]:
        """What another process reads in the journal's file."""
        if self._reader is None:
            self._reader = sqlite3.connect(self.gateway.path, isolation_level=None)
        return self._reader.execute(query, values).fetchall()

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def gateway_worked(self, from_ns: int, to_ns: int) -> bool:
        """Whether one process of the gateway worked all that time and could write."""
        lives = [*self.gateway.lives, (self.gateway.works_since_ns, self.now_ns)]
        return any(begun <= from_ns and to_ns <= ended for begun, ended in lives) and not any(
            start <= to_ns and from_ns <= end for start, end in self.journal_full
        )

    # what is judged

    def look(self) -> None:
        """Once a second: is anything shown that may not be shown, does anything grow?"""
        looks.look(self)
        for failures in (self.gateway.failures, *(ward.node.failures for ward in self.wards)):
            for failure in failures:
                self.find(Check.NOBODY_DIES_BY_HIMSELF, failure)
            failures.clear()

    def is_whole(self) -> bool:
        """Whether all has come together."""
        return next(whole.what_is_not(self), None) is None

    def conclude(self) -> None:
        """Everything has healed: judge the whole run."""
        self.look()
        for check, text in whole.what_is_not(self):
            self.find(check, text)
        if self.gateway.parts is None:
            return
        self.entries = self._read_journal()
        for ward in self.wards:
            truth_audit.audit(self, ward)
        stream_audit.audit(self)
        gap_audit.audit(self)
        alarm_audit.audit(self)
        telling_audit.audit(self)
        act_audit.audit(self)
        historian_audit.audit(self)

    def journaled(self) -> list[EdgeEvent]:
        """Every agent's event in the journal, in order."""
        return [entry.body for entry in self.entries if isinstance(entry.body, EdgeEvent)]

    def _read_journal(self) -> Sequence[Entry]:
        """All of it, from the file; nothing while the gateway is down."""
        parts = self.gateway.parts
        return () if parts is None else parts.journal.entries_after(0, 1_000_000)
