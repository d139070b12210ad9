"""Does the journal still say what was written into it? The evidence chain, checked entry by entry.

Two chains run through it. The gateway's links every entry to the one before it, so whatever was changed, removed,
inserted or reordered shows at the first bad entry (`tampering` says which). The agents' runs through their events:
hashes, links and signed checkpoints, which nobody can forge who has the gateway's database alone.

    every entry    position follows; link fits; content can be read        else flipped, removed, inserted, reordered
    agent's event  seq follows, or a final gap accounts for the hole;
                   `prev` is the hash before it, unless marked             else removed, inserted, forged
    a run's start  the event that it follows stands earlier, or a final
                   gap accounts for it                                     else removed
    checkpoint     the signature is by a key that the agent has published  else forged
    head           the entry and the events that it names stand there      else re-signed
    the end        the rows beside the journal know no later entry         else truncated
                   no head has seen a later entry                          else rolled back

The links need no key: whoever rewrites the journal can link it anew, and only the agents' signatures and heads kept
elsewhere (`edge_agent.wire.heads`) stand against that. One pass; memory is bounded by epochs, gaps and heads.

Source: the outside contract, section 6; reliability invariant I-22.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from edge_agent.wire.chain import checkpoint_message, seed_hash
from edge_agent.wire.codec import DecodeError
from edge_agent.wire.event import EventKind, Json
from edge_agent.wire.flaw import Deed, Flaw
from edge_agent.wire.heads import AgentKey, EventKey, Heads
from edge_agent.wire.sealed import Sealed, unseal
from gateway.domain.journal import (
    LINK_SEED,
    EntryKind,
    GapFound,
    Mark,
    StoredBody,
    entry_link,
    load_body,
)
from gateway.domain.tampering import Numbered, StoredEntry, deed_of

SignatureCheck: TypeAlias = Callable[[AgentKey, bytes, str], bool | None]
"""Whether a base64 signature over a message is by a key of this agent; None when no key of it is known."""

EpochKey: TypeAlias = tuple[str, str, str]
"""Site, agent and epoch."""

Fault: TypeAlias = tuple[Deed, str]
"""What was done, and how it shows."""


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What a verification found: `flaw` None when all is well.

    `marked` events were doubted when they came, and said so; `unchecked` checkpoints are by agents that never
    published a key here; `heads` places agree with a head; `heads_beyond` are about events that are not held here.
    """

    entries: int
    events: int
    marked: int
    checkpoints: int
    unchecked: int
    heads: int
    heads_beyond: int
    flaw: Flaw | None


class Ledger:
    """One pass over a journal from its first entry. `take` each entry in the order of the table.

    `followed` are the events that runs say they follow: only of those, and of the last of each epoch, hashes are kept.
    """

    def __init__(self, is_signed: SignatureCheck, followed: Collection[EventKey], heads: Heads) -> None:
        self._is_signed = is_signed
        self._followed = followed
        self._hashes: dict[EventKey, str] = {}
        self._heads = heads
        self._agreed = 0
        self._last: dict[EpochKey, tuple[int, str]] = {}
        self._gaps: dict[EpochKey, list[GapFound]] = {}
        self.link = LINK_SEED
        self.position = 0
        self.events = 0
        self.checkpoints = 0
        self.unchecked = 0
        self.marked = 0
        self.met = 0

    def fits(self, entry: StoredEntry) -> bool:
        """Whether this entry is the next by position and link."""
        link = entry_link(self.link, entry.position, entry.recorded_at_ms, entry.stored)
        return entry.position == self.position + 1 and link == entry.link

    def take(self, entry: StoredEntry) -> Fault | None:
        """Take an entry that fits; what is wrong with it all the same, or None."""
        self.position, self.link = entry.position, entry.link
        for pin in self._heads.links.get(entry.position, ()):
            if pin.digest != entry.link:
                return self._contradicted(pin.by)
            self._agreed, self.met = self.position, self.met + 1
        if entry.stored.kind is EntryKind.EDGE_EVENT:
            event = unseal(entry.stored.payload)
            if isinstance(event, DecodeError) or entry.stored.occurred_at is None:
                reason = (
                    event.reason if isinstance(event, DecodeError) else "its time of occurrence is missing"
                )
                return Deed.FORGED, f"an agent's event that cannot be one: {reason}"
            return self._take_event(event, entry.stored.marks)
        return self._take_fact(entry.stored)

    def _shortfall(self) -> Fault | None:
        """What heads have seen that this journal never came to, or None."""
        missed = [(position, pin) for position, pins in self._heads.links.items() for pin in pins]
        position, pin = max(missed, key=lambda item: item[0], default=(0, None))
        if pin is None or position <= self.position:
            return None
        shown = f"it ends with entry {self.position}, but {pin.by} saw entry {position}"
        return Deed.ROLLED_BACK, f"{shown}: an older copy was put back, or the end cut off"

    def report(self, flaw: Flaw | None) -> LedgerReport:
        """What was found up to `flaw`, or at the end; there, what heads have seen beyond it is a flaw too."""
        if flaw is None and (missed := self._shortfall()):
            flaw = Flaw(f"entry {self.position}", *missed)
        return LedgerReport(
            self.position,
            self.events,
            self.marked,
            self.checkpoints,
            self.unchecked,
            self.met,
            self._beyond(),
            flaw,
        )

    def _beyond(self) -> int:
        ends = {key: seq for key, (seq, _) in self._last.items()}
        return sum(seq > ends.get((site, agent, epoch), 0) for site, agent, epoch, seq in self._heads.events)

    def _contradicted(self, by: str) -> Fault:
        since = f"after entry {self._agreed}" if self._agreed else "from the beginning on"
        deed = "written anew and linked again, or an older copy that went on"
        return Deed.RESEALED, f"{by} saw another entry here: {deed}, somewhere {since}"

    def _take_fact(self, stored: StoredBody) -> Fault | None:
        try:
            body = load_body(stored)
        except ValueError as error:
            return Deed.FORGED, f"it cannot be read: {error}"
        if isinstance(body, GapFound) and body.final:
            self._gaps.setdefault((body.site, body.agent, body.epoch), []).append(body)
        return None

    def _take_event(self, event: Sealed, marks: tuple[Mark, ...]) -> Fault | None:
        stamp = event.stamp
        self.events += 1
        self.marked += bool(marks)
        fault = self._check_place(event, marks)
        if fault is None and event.kind == EventKind.CHECKPOINT:
            fault = self._check_signature(event)
        key = (stamp.site, stamp.agent, stamp.epoch)
        self._last[key] = (stamp.seq, event.hash)
        if (*key, stamp.seq) in self._followed:
            self._hashes[*key, stamp.seq] = event.hash
        for pin in () if fault else self._heads.events.get((*key, stamp.seq), ()):
            if pin.digest != event.hash:
                return self._contradicted(pin.by)
            self.met += 1
        return fault

    def _check_place(self, event: Sealed, marks: tuple[Mark, ...]) -> Fault | None:
        stamp = event.stamp
        key = (stamp.site, stamp.agent, stamp.epoch)
        seq, before = self._last.get(key, (0, None))
        if stamp.seq <= seq:
            return Deed.INSERTED, f"event {_name(event)} comes after {seq} of its run"
        if stamp.seq > seq + 1:
            if self._is_stated(key, seq + 1, stamp.seq - 1):
                return None
            return Deed.REMOVED, f"before event {_name(event)} some are missing"
        if seq == 0:
            before = self._hash_before_start(event)
            if before is None and Mark.UNRECOGNISED not in marks and self._is_orphan(event):
                return Deed.REMOVED, f"what came before event {_name(event)} is missing"
        if before is not None and stamp.prev != before and Mark.CHAIN_BROKEN not in marks:
            return Deed.FORGED, f"event {_name(event)} does not link to the event before it"
        return None

    def _hash_before_start(self, event: Sealed) -> str | None:
        """What a run's first event must link to; None where that is not held or cannot be told."""
        stamp = event.stamp
        if event.kind != EventKind.AGENT_STARTED or "after" not in event.document:
            return None
        after = event.document["after"]
        if after is None:
            return seed_hash(stamp.site, stamp.agent, stamp.epoch)
        named = after_named(after)
        if named is None:
            return None
        seq, digest = self._last.get((stamp.site, stamp.agent, named[0]), (0, None))
        return digest if seq == named[1] else self._hashes.get((stamp.site, stamp.agent, *named))

    def _is_orphan(self, event: Sealed) -> bool:
        """Whether a run says that it follows an event which neither stands here nor is in a final gap.

        The gateway takes up no such run before it has stated as lost what is missing.
        """
        named = after_named(event.document.get("after")) if event.kind == EventKind.AGENT_STARTED else None
        if named is None or named[1] < 1:
            return False
        key = (event.stamp.site, event.stamp.agent, named[0])
        seq, _ = self._last.get(key, (0, None))
        return not self._is_stated(key, min(seq + 1, named[1]), named[1])

    def _is_stated(self, key: EpochKey, from_seq: int, to_seq: int) -> bool:
        """Whether final gaps account for all of this hole."""
        for gap in sorted(self._gaps.get(key, ()), key=lambda gap: gap.from_seq):
            if gap.from_seq <= from_seq:
                from_seq = max(from_seq, to_seq + 1 if gap.to_seq is None else gap.to_seq + 1)
        return from_seq > to_seq

    def _check_signature(self, event: Sealed) -> Fault | None:
        stamp, content = event.stamp, event.document
        if (content.get("upto"), content.get("upto_hash")) != (stamp.seq - 1, stamp.prev):
            return Deed.FORGED, f"checkpoint {_name(event)} is about another event than the one before it"
        message = checkpoint_message(stamp.site, stamp.agent, stamp.epoch, stamp.seq - 1, stamp.prev)
        self.checkpoints += 1
        is_good = self._is_signed((stamp.site, stamp.agent), message, str(content.get("signature")))
        self.unchecked += is_good is None
        if is_good is False:
            return Deed.FORGED, f"the signature of checkpoint {_name(event)} is not this agent's"
        return None


def check_ledger(entries: Iterable[Numbered], ledger: Ledger) -> Flaw | None:
    """Take every entry up to the first flaw. What lies beyond the end is the caller's to compare."""
    stream = iter(entries)
    for where, entry in stream:
        if entry is None:
            following = next(stream, None)
            deed = Deed.TRUNCATED if following is None else Deed.FLIPPED
            return Flaw(where, deed, "it cannot be read as an entry")
        if not ledger.fits(entry):
            deed = deed_of(ledger.link, ledger.position + 1, entry, stream)
            return Flaw(where, deed, _misfit(ledger.position, entry))
        fault = ledger.take(entry)
        if fault is not None:
            return Flaw(where, *fault)
    return None


def after_named(after: Json) -> tuple[str, int] | None:
    """Epoch and seq of the event that an `agent_started` says it follows."""
    epoch, seq = (after.get("epoch"), after.get("seq")) if isinstance(after, dict) else (None, None)
    return (epoch, seq) if isinstance(epoch, str) and isinstance(seq, int) else None


def _misfit(position: int, entry: StoredEntry) -> str:
    if entry.position > position + 1:
        return f"entries {position + 1} to {entry.position - 1} are missing before it"
    if entry.position <= position:
        return f"entry {entry.position} comes after entry {position}"
    return "it was changed, inserted or moved: its link does not fit"


def _name(event: Sealed) -> str:
    stamp = event.stamp
    return f"{stamp.site}/{stamp.agent}/{stamp.epoch}/{stamp.seq}"
