"""Is this event the next one? The gateway's side of the delivery protocol, as functions of values.

Theory of operation. An agent sends its store's chain in order and starts again wherever the gateway says (go-back-N);
the broker between them may lose, double, delay or forget anything. So the gateway accepts exactly one event at a time
of each epoch, the *next*, and answers with the last one it holds; whatever else comes is a duplicate, a conflict, or
ahead of its turn and dropped, because it will come again. What will never come again (pruned, damaged, the tail of a
lost store) the agent's newest health states, or a new store implies; then the next event is the one after the hole,
and the hole is a final gap.

    judge ─┬─ held already ─┬─ same hash ──▶ Duplicate
           │                └─ other hash ─▶ Conflict        (quarantined, the held one stays)     ┐ where another
           ├─ in its turn ─────────────────▶ Next            (journaled; doubts and losses stated) ┘ event is held
           │                                                 before it: see below
           ├─ inside a stated gap ─────────▶ Late            (quarantined: its place in the order has passed)
           ├─ after a stated loss ─────────▶ Next(lost=…)
           └─ otherwise ───────────────────▶ Ahead(missing)  (dropped; a gap that may still fill)

Two histories of one epoch exist when a running machine is resumed from a snapshot. Then an event may follow another
event than the one that is held in that place. An ack of it would tell its agent that the other one has arrived, too,
which the broker may have lost. So it waits until that one lies in quarantine; the agent sends it again first. Only
where the agent's health shows that it has nothing more to send in between (its chain was tampered with, or the rest is
pruned or damaged), it is taken, and what may have been before it is stated as lost.

Nothing here is ever stuck: every event of a chain is the next one as soon as what lies before it is held or stated to
be gone. Nothing is lost unstated: an answer names an event only when everything before it is held or in a `Lost`.

Source: the delivery protocol, sections 3.1 to 3.5 (README).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from edge_agent.wire.chain import seed_hash
from edge_agent.wire.event import AgentStarted, Event, Position, Unrecognised
from edge_agent.wire.status import Ack, GoneRange, Health, Predecessor


class Holdings(Protocol):
    """What the gateway holds of one agent's stream."""

    def hash_at(self, epoch: str, seq: int) -> str | None:
        """The hash of an event that is held, or None."""
        ...

    def last(self, epoch: str) -> Position | None:
        """The last event held of one epoch, or None."""
        ...

    def newest(self) -> Position | None:
        """The event of this agent that was journaled last, or None."""
        ...

    def latest_epoch(self) -> str | None:
        """The epoch of this agent that began last here, or None."""
        ...

    def is_refused(self, position: Position) -> bool:
        """Whether this very event was refused (`Conflict`, `Late`) and lies in quarantine: known here, if not held."""
        ...

    def find_hash(self, digest: str) -> Position | None:
        """The event held with this hash, or None (rare and slow: only for beginnings that cannot be read)."""
        ...


@dataclass(frozen=True, slots=True)
class Lost:
    """Events of `epoch` from `from_seq` to `to_seq` (None: open end) that are missing; `reason` is for people."""

    epoch: str
    from_seq: int
    to_seq: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Next:
    """The event takes its place in the journal.

    `chain_broken`: its `prev` is not our hash of the event before it. `lost`: final gaps that end here. `forked`: its
    epoch takes up elsewhere than at the end (a restored or cloned image). `contradicts`: it takes up after an event
    that is held here with another hash. `second_agent`: another epoch has already followed this one, so two agents
    run with one identity.
    """

    chain_broken: bool = False
    lost: tuple[Lost, ...] = ()
    forked: bool = False
    contradicts: bool = False
    second_agent: bool = False


_NEXT = Next()
"""What nearly every event is: in its turn, and nothing to say about it."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """It is held already."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Its key is held with another hash, `held_hash`: the one that is held stays. `lost`: final gaps that end here."""

    held_hash: str
    lost: tuple[Lost, ...] = ()


@dataclass(frozen=True, slots=True)
class Late:
    """It lies in a gap that was stated as final: somebody still had it (a restored image, a clone)."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """It is not its turn: dropped. `missing` is the hole before it, None where nobody can tell."""

    missing: Lost | None


Verdict: TypeAlias = Next | Duplicate | Conflict | Late | Ahead


def judge(event: Event, held: Holdings, health: Health | None) -> Verdict:
    """What becomes of `event`, given what is held and the agent's newest health (None: none yet) (§3.1, §3.3–5)."""
    known = held.hash_at(event.epoch, event.seq)
    if known == event.hash:
        return Duplicate()
    if known is not None:
        lost = _lost_history(event, held, health)
        return Ahead(None) if lost is None else Conflict(known, lost)
    last = held.last(event.epoch)
    if last is not None and event.seq < last.seq:
        return Late()
    if last is not None and event.seq == last.seq + 1:
        lost = _lost_history(event, held, health)
        if lost is None:
            return Ahead(None)
        is_broken, is_second = event.prev != last.hash, _is_followed(event.epoch, held)
        return Next(is_broken, lost, second_agent=is_second) if is_broken or lost or is_second else _NEXT
    if last is None and event.seq == 1:
        start = _judge_start(event, held, health)
        if start is not None:
            return start
    return _judge_after_loss(event, held, health) or Ahead(_missing_before(event, held))


def answer(held: Holdings, judged: Sequence[tuple[Event, Verdict]], health: Health | None) -> Ack:
    """The cumulative ack for a batch of one epoch (§3.1): the last event of it that is not dropped.

    A batch wholly dropped is answered with the last held of that epoch, else of the agent. Never a reset, so that a
    late duplicate of a batch cannot move an agent back. A conflict is answered by the gateway's own hash, which makes
    the agent begin a new epoch; in an epoch that it has left already that would only keep it waiting, so there it is
    told that its own event is safe, as it is: in quarantine.
    """
    epoch = judged[-1][0].epoch
    for event, verdict in reversed(judged):
        match verdict:
            case Ahead():
                continue
            case Conflict(held_hash=held_hash) if health is None or health.epoch == epoch:
                return _ack(epoch, Position(epoch, event.seq, held_hash), reset=False)
            case _:
                return _ack(epoch, event.position, reset=False)
    return _ack(epoch, held.last(epoch) or held.newest(), reset=False)


def demand_reset(held: Holdings, health: Health) -> Ack | None:
    """The reset that a health calls for: it shows an `acked` that is not held with that hash (§3.2).

    It names the newest event held, of the health's own epoch where there is one (a clone's would mean nothing to this
    agent), or nothing.
    """
    acked = health.acked
    if not health.online or acked is None or _is_accounted_for(acked, held):
        return None
    return _ack(health.epoch, held.last(health.epoch) or held.newest(), reset=True)


def _is_accounted_for(acked: Position, held: Holdings) -> bool:
    """Held with that hash, inside a stated gap, or in quarantine: going back would bring nothing new."""
    digest = held.hash_at(acked.epoch, acked.seq)
    if digest == acked.hash or held.is_refused(acked):
        return True
    last = held.last(acked.epoch)
    return digest is None and last is not None and acked.seq < last.seq


def _ack(to: str, position: Position | None, *, reset: bool) -> Ack:
    if position is None:
        return Ack(to, None, None, None, reset)
    return Ack(to, position.epoch, position.seq, position.hash, reset)


def _is_followed(epoch: str, held: Holdings) -> bool:
    """Has another epoch begun after this one? A single agent sends all of an epoch before it begins the next (§3.5)."""
    return held.latest_epoch() != epoch


def _lost_history(event: Event, held: Holdings, health: Health | None) -> tuple[Lost, ...] | None:
    """What is lost for good of another history before `event`, None where that may still come (§3.4)."""
    before = _before(event)
    if before is None or _is_accounted_for(before, held):
        return ()
    if health is None:
        return None
    seq, acked = before.seq, health.acked
    for item in sorted(health.gone, key=lambda item: item.from_seq, reverse=True):
        if item.epoch == before.epoch and item.from_seq <= seq <= item.to_seq:
            seq = item.from_seq - 1
    is_next_to_send = acked is not None and (acked.epoch, acked.seq) == (before.epoch, seq)
    if seq > 0 and not is_next_to_send and health.first != event.position:
        return None
    return (Lost(before.epoch, 1, before.seq, "another history of this run, where it was not received"),)


def _before(event: Event) -> Position | None:
    """The event that `event` follows in its store, None for the first of a store."""
    if event.seq > 1:
        return Position(event.epoch, event.seq - 1, event.prev)
    return event.body.after if isinstance(event.body, AgentStarted) else None


def _judge_start(event: Event, held: Holdings, health: Health | None) -> Next | Ahead | None:
    """Seq 1 of an epoch that is not held: a first store, a replaced one, or a restart of a chain that is held."""
    if isinstance(event.body, AgentStarted):
        after = event.body.after
    elif isinstance(event.body, Unrecognised) and event.prev != seed_hash(
        event.site, event.agent, event.epoch
    ):
        after = held.find_hash(event.prev)  # a younger agent's start: its link says what its content would
        if after is None:
            return None
    else:
        after = None
    if after is None:
        broken = event.prev != seed_hash(event.site, event.agent, event.epoch)
        return Next(chain_broken=broken, lost=_tail_of_replaced_store(held))
    digest = held.hash_at(after.epoch, after.seq)
    end = held.last(after.epoch)
    if digest is None:  # lost in a stated gap, unless it is still to come
        return Next(forked=True) if end is not None and after.seq < end.seq else None
    lost = _lost_history(event, held, health)
    if lost is None:
        return Ahead(None)
    forked = end is None or end.seq != after.seq or _is_followed(after.epoch, held)
    return Next(event.prev != digest, lost, forked, contradicts=digest != after.hash)


def _tail_of_replaced_store(held: Holdings) -> tuple[Lost, ...]:
    return _open_tail(held, "the agent's store was replaced: what it had not yet delivered is lost")


def _open_tail(held: Holdings, reason: str) -> tuple[Lost, ...]:
    """The rest, of unknown length, of the epoch that began last here; nothing where nothing is held."""
    latest = held.latest_epoch()
    last = None if latest is None else held.last(latest)
    return () if last is None else (Lost(last.epoch, last.seq + 1, None, reason),)


def _judge_after_loss(event: Event, held: Holdings, health: Health | None) -> Next | None:
    """The event that the newest health's `first` or `gone` makes the next one; `prev` is taken as given (§3.3)."""
    if health is None:
        return None
    last = held.last(event.epoch)
    if health.first == event.position:
        lost = _lost_before_first(event, held, health)
    else:
        lost = _lost_to_damage(event, held, health)
        if not lost:
            return None
    return Next(lost=lost, second_agent=last is not None and _is_followed(event.epoch, held))


def _lost_before_first(event: Event, held: Holdings, health: Health) -> tuple[Lost, ...]:
    reason = "pruned by the agent before it was delivered here"
    hole, is_whole = _hole_before(event, held, health.gone, reason)
    return hole if is_whole else _open_tail(held, reason) + hole


def _lost_to_damage(event: Event, held: Holdings, health: Health) -> tuple[Lost, ...]:
    """What `gone` takes away right before `event`, empty where it does not explain the whole hole.

    An older agent does not say what a beginning that is gone came after. Then what it saw acked must at least be held
    here, and the open end after what is held of that epoch is stated as lost, too.
    """
    reason = "damaged in the agent's store"
    hole, is_whole = _hole_before(event, held, health.gone, reason)
    if not hole or not all(_is_gone(lost, health.gone) for lost in hole):
        return ()
    if is_whole:
        return hole
    acked = health.acked
    if acked is None or not _is_accounted_for(acked, held):
        return ()
    end = held.last(acked.epoch) or acked
    return (Lost(acked.epoch, max(acked.seq, end.seq) + 1, None, reason), *hole)


def _hole_before(
    event: Event, held: Holdings, gone: Sequence[GoneRange], reason: str
) -> tuple[tuple[Lost, ...], bool]:
    """What is not held before `event`, back to the nearest epoch that is, and whether one was found.

    From the beginning of an epoch to the end of the one before `gone` leads, as often as it tells of another epoch.
    """
    hole: tuple[Lost, ...] = ()
    end = _predecessor(event)
    for _ in range(len(gone) + 1):  # an agent that leads in circles leads nowhere
        if end is None:
            break
        last = held.last(end.epoch)
        hole = _range(end.epoch, 1 if last is None else last.seq + 1, end.seq, reason) + hole
        if last is not None:
            return hole, True
        end = next((item.after for item in gone if (item.epoch, item.from_seq) == (end.epoch, 1)), None)
    return hole, False


def _predecessor(event: Event) -> Predecessor | None:
    before = _before(event)
    return None if before is None else Predecessor(before.epoch, before.seq)


def _is_gone(lost: Lost, gone: Iterable[GoneRange]) -> bool:
    return lost.to_seq is not None and _skip(lost.from_seq, lost.epoch, gone) > lost.to_seq


def _skip(seq: int, epoch: str, gone: Iterable[GoneRange]) -> int:
    """The first event at or after `seq` that no range of `gone` covers."""
    for item in sorted(gone, key=lambda item: item.from_seq):
        if item.epoch == epoch and item.from_seq <= seq <= item.to_seq:
            seq = item.to_seq + 1
    return seq


def _range(epoch: str, from_seq: int, to_seq: int, reason: str) -> tuple[Lost, ...]:
    return (Lost(epoch, from_seq, to_seq, reason),) if from_seq <= to_seq else ()


def _missing_before(event: Event, held: Holdings) -> Lost | None:
    """The hole that keeps `event` waiting, as far as it can be told."""
    reason = "not delivered yet"
    last = held.last(event.epoch)
    if last is not None or event.seq > 1:
        found = _range(event.epoch, 1 if last is None else last.seq + 1, event.seq - 1, reason)
        return found[0] if found else None
    after = event.body.after if isinstance(event.body, AgentStarted) else None
    if after is None:
        return None
    end = held.last(after.epoch)
    found = _range(after.epoch, 1 if end is None else end.seq + 1, after.seq, reason)
    return found[0] if found else None
