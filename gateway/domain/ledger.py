"""Does the journal still say what was written into it? The evidence chain, checked entry by entry.

Two chains run through it. The gateway's links every entry to the one before it, so whatever was changed, removed,
inserted or reordered shows at the first bad entry. The agents' runs through their events: hashes, links and signed
checkpoints, which nobody can forge who has the gateway's database alone.

    every entry    position follows; link fits; content can be read
    agent's event  seq follows, or a final gap accounts for the hole; `prev` is the hash before it, unless marked
    checkpoint     the signature is by a key that the agent has published

A journal cut off at its end is consistent; its rows beside it are ahead of it then (the caller compares them).

Source: the outside contract, section 6; reliability invariant I-22.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from edge_agent.wire.chain import checkpoint_message, seed_hash
from edge_agent.wire.event import AgentStarted, Checkpoint, Event
from gateway.domain.journal import (
    LINK_SEED,
    EdgeEvent,
    EntryBody,
    GapFound,
    Mark,
    StoredBody,
    entry_link,
    load_body,
)

AgentKey: TypeAlias = tuple[str, str]
"""Site and agent."""

SignatureCheck: TypeAlias = Callable[[AgentKey, bytes, str], bool | None]
"""Whether a base64 signature over a message is by a key of this agent; None when no key of it is known."""


EpochKey: TypeAlias = tuple[str, str, str]
"""Site, agent and epoch."""

HashAt: TypeAlias = Callable[[AgentKey, str, int], str | None]
"""The hash of the event of this agent, epoch and seq in the journal, or None."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it lies in the table."""

    position: int
    recorded_at_ms: int
    stored: StoredBody
    link: str


class Ledger:
    """One pass over a journal from its first entry. `take` each entry in the order of the table."""

    def __init__(self, is_signed: SignatureCheck, hash_at: HashAt) -> None:
        self._is_signed = is_signed
        self._hash_at = hash_at
        self._link = LINK_SEED
        self._last: dict[EpochKey, tuple[int, str]] = {}
        self._gaps: dict[EpochKey, list[GapFound]] = {}
        self.position = 0
        self.events = 0
        self.checkpoints = 0
        self.unchecked = 0
        self.marked = 0

    def take(self, entry: StoredEntry) -> str | None:
        """What is wrong with this entry, or None."""
        if entry.position != self.position + 1:
            return f"entries {self.position + 1} to {entry.position - 1} are missing before it"
        link = entry_link(self._link, entry.position, entry.recorded_at_ms, entry.stored)
        if link != entry.link:
            return "it was changed, inserted or moved: its link does not fit"
        try:
            body = load_body(entry.stored)
        except ValueError as error:
            return f"it cannot be read: {error}"
        self.position, self._link = entry.position, link
        return self._take_body(body)

    def _take_body(self, body: EntryBody) -> str | None:
        if isinstance(body, GapFound) and body.final:
            self._gaps.setdefault((body.site, body.agent, body.epoch), []).append(body)
        if not isinstance(body, EdgeEvent):
            return None
        event = body.event
        self.events += 1
        self.marked += bool(body.marks)
        problem = self._check_place(event, is_marked=Mark.CHAIN_BROKEN in body.marks)
        if problem is None and isinstance(event.body, Checkpoint):
            problem = self._check_signature(event, event.body)
        self._last[event.site, event.agent, event.epoch] = (event.seq, event.hash)
        return problem

    def _check_place(self, event: Event, *, is_marked: bool) -> str | None:
        name = f"{event.site}/{event.agent}/{event.epoch}/{event.seq}"
        key = (event.site, event.agent, event.epoch)
        seq, before = self._last.get(key, (0, None))
        if event.seq <= seq:
            return f"event {name} comes after {seq} of its run"
        if event.seq > seq + 1:
            return (
                None
                if self._is_stated(key, seq + 1, event.seq - 1)
                else f"before event {name} some are missing"
            )
        if seq == 0:
            before = self._hash_before_start(event)
        if before is not None and event.prev != before and not is_marked:
            return f"event {name} does not link to the event before it"
        return None

    def _hash_before_start(self, event: Event) -> str | None:
        """What a run's first event must link to; None where that is not held or cannot be told."""
        if not isinstance(event.body, AgentStarted):
            return None
        if event.body.after is None:
            return seed_hash(event.site, event.agent, event.epoch)
        return self._hash_at((event.site, event.agent), event.body.after.epoch, event.body.after.seq)

    def _is_stated(self, key: EpochKey, from_seq: int, to_seq: int) -> bool:
        """Whether final gaps account for all of this hole."""
        for gap in sorted(self._gaps.get(key, ()), key=lambda gap: gap.from_seq):
            if gap.from_seq <= from_seq:
                from_seq = max(from_seq, to_seq + 1 if gap.to_seq is None else gap.to_seq + 1)
        return from_seq > to_seq

    def _check_signature(self, event: Event, checkpoint: Checkpoint) -> str | None:
        name = f"{event.site}/{event.agent}/{event.epoch}/{event.seq}"
        if (checkpoint.upto, checkpoint.upto_hash) != (event.seq - 1, event.prev):
            return f"checkpoint {name} is about another event than the one before it"
        message = checkpoint_message(
            event.site, event.agent, event.epoch, checkpoint.upto, checkpoint.upto_hash
        )
        self.checkpoints += 1
        is_good = self._is_signed((event.site, event.agent), message, checkpoint.signature)
        self.unchecked += is_good is None
        return f"the signature of checkpoint {name} is not this agent's" if is_good is False else None
