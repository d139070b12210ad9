"""Verifying evidence: is this the chain as it was written? Pure; needs the payloads and, for signatures, a key.

Each entry must be canonical, hash to what it says, follow its predecessor by hash and by number, and begin an epoch
only with an `agent_started` that names the entry before it. The first entry of a store follows its seed; a pruned
chain begins with the signed checkpoint that it starts after. At the first misfit the rest is read only to say what was
done to the chain:

    does not hash, not canonical                                     flipped
    the next links to the one before, or two link to the same        inserted
    the entry it follows comes later                                 reordered
    the entry it follows is nowhere                                  removed
    ends inside a line, a report, or before a due checkpoint         truncated
    a checkpoint's signature does not fit                            forged

A chain cut off exactly between two entries looks like a chain that had not gone on: `unsealed` counts the entries
after the last checkpoint, and a store also keeps its last position beside the chain, which is compared.

Source: the outside contract, section 6.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edge_agent.wire.chain import canonical, checkpoint_message, seed_hash
from edge_agent.wire.codec import DecodeError, decode, parse_object
from edge_agent.wire.event import (
    AgentStarted,
    Checkpoint,
    Event,
    Position,
    Priority,
    StateReport,
    ViolationRaised,
)

CheckSignature = Callable[[bytes, str], bool]
"""Whether a signature (base64) over a message was made by the agent's key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored payload and where it stands: `line 17`, `place 17`."""

    where: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first bad entry: where, what was done (`flipped`, `removed`, …), and how that shows."""

    where: str
    deed: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: `flaw` None when the chain is whole; `last` its end; counts of what was checked."""

    entries: int
    epochs: int
    checkpoints: int
    signatures: int
    unsealed: int
    last: Position | None
    flaw: Flaw | None


class _Walk:
    """The chain walked so far."""

    def __init__(self, check_signature: CheckSignature | None) -> None:
        self._check_signature = check_signature
        self.previous: Event | None = None
        self.entries = 0
        self.epochs = 0
        self.checkpoints = 0
        self.signatures = 0
        self.unsealed = 0
        self.owes_checkpoint = False

    def step(self, event: Event) -> str | None:
        """Take one whole event; how it fails to follow, or None."""
        before = self.previous
        if before is None:
            misfit = self._first(event)
        elif event.prev != before.hash:
            misfit = f"prev is not the hash of {_name(before)}"
        else:
            misfit = _numbering(before, event)
        if misfit is not None:
            return misfit
        self.previous = event
        self.entries += 1
        self.epochs += before is None or before.epoch != event.epoch
        return None

    def seal(self, event: Event) -> str | None:
        """Check and count a checkpoint; how it is forged, or None."""
        body = event.body
        self.owes_checkpoint |= isinstance(body, ViolationRaised) and body.priority is Priority.P1
        if not isinstance(body, Checkpoint):
            self.unsealed += 1
            return None
        if (body.upto, body.upto_hash) != (event.seq - 1, event.prev):
            return "the checkpoint names another entry than the one before it"
        if self._check_signature is not None:
            message = checkpoint_message(event.site, event.agent, event.epoch, body.upto, body.upto_hash)
            if not self._check_signature(message, body.signature):
                return "the signature is not by this key"
            self.signatures += 1
        self.checkpoints += 1
        self.unsealed = 0
        self.owes_checkpoint = False
        return None

    def missing_end(self) -> str | None:
        """What must follow the last entry by its own word, or None."""
        if self.owes_checkpoint:
            return "the checkpoint that every P1 is committed with does not follow"
        body = self.previous.body if self.previous else None
        if isinstance(body, StateReport) and body.part < body.parts:
            return f"part {body.part} of {body.parts} of a state report is the last"
        return None

    def verdict(self, flaw: Flaw | None) -> Verdict:
        last = self.previous.position if self.previous else None
        return Verdict(
            self.entries, self.epochs, self.checkpoints, self.signatures, self.unsealed, last, flaw
        )

    @staticmethod
    def _first(event: Event) -> str | None:
        if isinstance(event.body, Checkpoint):
            return None
        if event.prev != seed_hash(event.site, event.agent, event.epoch) or event.seq != 1:
            return f"the chain begins with {_name(event)}, neither a new store's first entry nor a checkpoint"
        return None


def verify_chain(entries: Iterable[Entry], check_signature: CheckSignature | None) -> Verdict:
    """Walk a chain up to its first flaw. Without `check_signature` checkpoints are only compared."""
    walk = _Walk(check_signature)
    stream = iter(entries)
    where = "the end"
    for entry in stream:
        where = entry.where
        event = _whole(entry.payload)
        if isinstance(event, str):
            following = next(stream, None)
            deed = "truncated" if following is None and not entry.payload.endswith(b"}") else "flipped"
            return walk.verdict(Flaw(where, deed, event))
        before = walk.previous
        misfit = walk.step(event)
        if misfit is not None:
            return walk.verdict(Flaw(where, _deed(before, event, stream), f"{_name(event)}: {misfit}"))
        forged = walk.seal(event)
        if forged is not None:
            return walk.verdict(Flaw(where, "forged", f"{_name(event)}: {forged}"))
    missing = walk.missing_end()
    return walk.verdict(Flaw(where, "truncated", missing) if missing else None)


def _whole(payload: bytes) -> Event | str:
    """The event, if it hashes and is written canonically, else what is wrong with it."""
    event = decode(payload)
    if isinstance(event, DecodeError):
        return event.reason
    document = parse_object(payload)
    if isinstance(document, DecodeError) or canonical(document) != payload:
        return "not written in canonical form"
    return event


def _numbering(before: Event, event: Event) -> str | None:
    if event.epoch == before.epoch:
        return None if event.seq == before.seq + 1 else f"seq {event.seq} follows {before.seq}"
    if event.seq != 1 or not isinstance(event.body, AgentStarted):
        return "a new epoch does not begin with agent_started as seq 1"
    if event.body.after != before.position:
        return "agent_started names another entry than the one before it"
    return None


def _deed(before: Event | None, event: Event, rest: Iterator[Entry]) -> str:
    """What was done where `event` does not follow `before`; reads the rest."""
    if before is None:
        return "removed"
    following = next(rest, None)
    later = [] if following is None else [decode(item.payload) for item in itertools.chain([following], rest)]
    events = [item for item in later if isinstance(item, Event)]
    if (events and events[0].prev == before.hash) or event.prev == before.prev:
        return "inserted"
    if any(item.hash == event.prev for item in events):
        return "reordered"
    return "removed"


def _name(event: Event) -> str:
    return f"{event.epoch}/{event.seq} ({event.kind})"
