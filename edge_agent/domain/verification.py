"""Verifying evidence: is this the chain as it was written? Pure; needs the payloads and, for signatures, a key.

Each entry must be canonical, hash to what it says, follow its predecessor by hash and by number, and begin an epoch
only with an `agent_started` that names the entry before it. The first entry of a store follows its seed; a pruned
chain begins with the signed checkpoint that it starts after. At the first misfit the rest is read only to say what was
done to the chain:

    does not hash, not canonical                                     flipped
    the next links to the one before, and nothing misses this one    inserted
    the entry it follows, or one that follows it, comes later        reordered
    the entry it follows is nowhere                                  removed
    ends inside a line, a report, or before a due checkpoint         truncated
    a checkpoint's signature does not fit                            forged
    a head saw another entry in this place                           re-signed
    a head saw an entry that this chain never came to                rolled back

A chain cut off exactly between two entries looks like a chain that had not gone on: `unsealed` counts the entries
after the last checkpoint, a store also keeps its last position beside the chain, which is compared, and heads
(`edge_agent.wire.heads`) tell how far it had got. A head older than a pruned chain's beginning can no longer be
compared: labels never run back in a chain, so that is one whose time is not above that of the first entry.

One pass, memory bounded by the heads. Source: the outside contract, section 6; reliability invariant I-22.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edge_agent.wire.chain import checkpoint_message, seed_hash
from edge_agent.wire.codec import DecodeError
from edge_agent.wire.event import EventKind, Position, Priority
from edge_agent.wire.flaw import Deed, Flaw
from edge_agent.wire.heads import EventKey, Heads, Pin
from edge_agent.wire.sealed import Sealed, unseal

CheckSignature = Callable[[bytes, str], bool]
"""Whether a signature (base64) over a message was made by the agent's key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored payload and where it stands: `line 17`, `place 17`."""

    where: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: `flaw` None when the chain is whole; `last` its end; counts of what was checked.

    `heads` places agree with a head, `heads_before` lie before the beginning of a pruned chain.
    """

    entries: int
    epochs: int
    checkpoints: int
    signatures: int
    unsealed: int
    last: Position | None
    flaw: Flaw | None
    heads: int = 0
    heads_before: int = 0


class _Comparison:
    """A chain compared with what heads say of it."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._unmet = dict(heads.events)
        self._ends = {
            key[:3]: (0, "") for key in heads.events
        }  # how far each epoch of interest has got, and where
        self._agreed = "its beginning"
        self.met = 0
        self.before = 0

    def take(self, event: Sealed, where: str) -> str | None:
        """How a head contradicts this event, or None."""
        epoch = (event.stamp.site, event.stamp.agent, event.stamp.epoch)
        if epoch not in self._ends:
            return None
        self._ends[epoch] = (event.stamp.seq, where)
        for pin in self._unmet.pop((*epoch, event.stamp.seq), ()):
            if pin.digest != event.hash:
                return f"{pin.by} saw another entry here: written anew and sealed again, somewhere after {self._agreed}"
            self.met += 1
            self._agreed = where
        return None

    def shortfall(self, first: Sealed | None, last: Sealed | None) -> Flaw | None:
        """The first place where the chain left what a head has seen, or None; at the chain's end."""
        if first is None or last is None:
            missed = [(pin, key) for key, pins in self._unmet.items() for pin in pins]
            return _rolled_back("the end", "it is empty", *missed[0]) if missed else None
        agent = (first.stamp.site, first.stamp.agent)
        is_pruned = first.kind == EventKind.CHECKPOINT
        found: Flaw | None = None
        newest = ""
        for key in self._heads.events_of(agent).keys() & self._unmet.keys():
            for pin in self._unmet[key]:
                if is_pruned and pin.at <= first.stamp.at:
                    self.before += 1
                elif pin.at > newest:
                    newest, found = pin.at, self._left(key, pin, last)
        return found

    def _left(self, key: EventKey, pin: Pin, last: Sealed) -> Flaw:
        seq, where = self._ends[key[:3]]
        epoch = key[2]
        if seq == 0:
            return _rolled_back("the end", f"it has nothing of epoch {epoch}", pin, key)
        if epoch == last.stamp.epoch:
            return _rolled_back(where, f"it ends with {epoch}/{seq}", pin, key)
        return _rolled_back(where, f"it leaves {epoch} after {seq} and goes on with another epoch", pin, key)


class _Walk:
    """The chain walked so far."""

    def __init__(self, check_signature: CheckSignature | None, heads: Heads) -> None:
        self._check_signature = check_signature
        self.compared = _Comparison(heads)
        self.first: Sealed | None = None
        self.previous: Sealed | None = None
        self.entries = 0
        self.epochs = 0
        self.checkpoints = 0
        self.signatures = 0
        self.unsealed = 0
        self.owes_checkpoint = False

    def step(self, event: Sealed) -> str | None:
        """Take one whole event; how it fails to follow, or None."""
        before = self.previous
        if before is None:
            misfit = _first_misfit(event)
            self.first = event
        elif event.stamp.prev != before.hash:
            misfit = f"prev is not the hash of {before.name}"
        else:
            misfit = _numbering(before, event)
        if misfit is not None:
            return misfit
        self.previous = event
        self.entries += 1
        self.epochs += before is None or before.stamp.epoch != event.stamp.epoch
        return None

    def seal(self, event: Sealed) -> str | None:
        """Check and count a checkpoint; how it is forged, or None."""
        stamp, content = event.stamp, event.document
        if event.kind == EventKind.VIOLATION_RAISED:
            self.owes_checkpoint |= content.get("priority") == Priority.P1.value
        if event.kind != EventKind.CHECKPOINT:
            self.unsealed += 1
            return None
        if (content.get("upto"), content.get("upto_hash")) != (stamp.seq - 1, stamp.prev):
            return "the checkpoint names another entry than the one before it"
        if self._check_signature is not None:
            message = checkpoint_message(stamp.site, stamp.agent, stamp.epoch, stamp.seq - 1, stamp.prev)
            signature = content.get("signature")
            if not isinstance(signature, str) or not self._check_signature(message, signature):
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
        if self.previous is not None and self.previous.kind == EventKind.STATE_REPORT:
            part, parts = (self.previous.document.get(key) for key in ("part", "parts"))
            if part != parts:
                return f"part {part} of {parts} of a state report is the last"
        return None

    def verdict(self, flaw: Flaw | None) -> Verdict:
        last = self.previous.position if self.previous else None
        return Verdict(
            self.entries,
            self.epochs,
            self.checkpoints,
            self.signatures,
            self.unsealed,
            last,
            flaw,
            self.compared.met,
            self.compared.before,
        )


def verify_chain(
    entries: Iterable[Entry], check_signature: CheckSignature | None, heads: Heads | None = None
) -> Verdict:
    """Walk a chain up to its first flaw. Without `check_signature` checkpoints are only compared."""
    walk = _Walk(check_signature, heads or Heads())
    stream = iter(entries)
    where = "the end"
    for entry in stream:
        where = entry.where
        event = unseal(entry.payload)
        if isinstance(event, DecodeError) or not event.is_canonical:
            following = next(stream, None)
            is_cut = following is None and not entry.payload.endswith(b"}")
            reason = event.reason if isinstance(event, DecodeError) else "not written in canonical form"
            return walk.verdict(Flaw(where, Deed.TRUNCATED if is_cut else Deed.FLIPPED, reason))
        before = walk.previous
        misfit = walk.step(event)
        if misfit is not None:
            return walk.verdict(Flaw(where, _deed(before, event, stream), f"{event.name}: {misfit}"))
        forged = walk.seal(event)
        if forged is not None:
            return walk.verdict(Flaw(where, Deed.FORGED, f"{event.name}: {forged}"))
        contradiction = walk.compared.take(event, where)
        if contradiction is not None:
            return walk.verdict(Flaw(where, Deed.RESEALED, f"{event.name}: {contradiction}"))
    missing = walk.missing_end()
    if missing:
        return walk.verdict(Flaw(where, Deed.TRUNCATED, missing))
    return walk.verdict(walk.compared.shortfall(walk.first, walk.previous))


def _first_misfit(event: Sealed) -> str | None:
    stamp = event.stamp
    if event.kind == EventKind.CHECKPOINT:
        return None
    if stamp.prev != seed_hash(stamp.site, stamp.agent, stamp.epoch) or stamp.seq != 1:
        return f"the chain begins with {event.name}, neither a new store's first entry nor a checkpoint"
    return None


def _numbering(before: Sealed, event: Sealed) -> str | None:
    last, here = before.stamp, event.stamp
    if (here.site, here.agent) != (last.site, last.agent):
        return f"it is of {here.site}/{here.agent}, not of {last.site}/{last.agent}"
    if here.epoch == last.epoch:
        return None if here.seq == last.seq + 1 else f"seq {here.seq} follows {last.seq}"
    if here.seq != 1 or event.kind != EventKind.AGENT_STARTED:
        return "a new epoch does not begin with agent_started as seq 1"
    after = event.document.get("after")
    named = after if isinstance(after, dict) else {}
    if (named.get("epoch"), named.get("seq"), named.get("hash")) != (last.epoch, last.seq, before.hash):
        return "agent_started names another entry than the one before it"
    return None


def _deed(before: Sealed | None, event: Sealed, rest: Iterator[Entry]) -> Deed:
    """What was done where `event` does not follow `before`; reads the rest."""
    sealed = (unseal(entry.payload) for entry in rest)
    later: Iterator[Sealed] = (item for item in sealed if isinstance(item, Sealed))
    following = next(later, None)
    if following is None:
        return Deed.REMOVED
    if before is not None and event.hash == before.hash:
        return Deed.INSERTED
    rest_of_it = itertools.chain([following], later)
    if before is not None and following.stamp.prev == before.hash:
        return _deed_of_stranger(event, rest_of_it)
    is_later = any(item.hash == event.stamp.prev for item in rest_of_it)
    return Deed.REORDERED if is_later else Deed.REMOVED


def _deed_of_stranger(event: Sealed, later: Iterator[Sealed]) -> Deed:
    """`event` was put before what belongs here: as a copy or from elsewhere, or it is missing where it stood."""
    is_missed = False
    for item in later:
        if item.hash == event.hash:
            return Deed.INSERTED
        is_missed |= item.stamp.prev == event.hash
    return Deed.REORDERED if is_missed else Deed.INSERTED


def _rolled_back(where: str, shown: str, pin: Pin, key: EventKey) -> Flaw:
    seen = f"{pin.by} saw {key[2]}/{key[3]}"
    return Flaw(
        where, Deed.ROLLED_BACK, f"{shown}, but {seen}: an older copy was put back, or the end cut off"
    )
