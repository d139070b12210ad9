"""Gaps are stated where something was lost, and nowhere else; and those that may fill do, or end.

Lost is what an agent committed and the journal does not hold: damaged on the disk, pruned, or gone with a disk that
was replaced. Of a store that comes back as an older image of itself nobody can tell what is missing: that is a fork
(`epoch_fork`), no gap, as is the tail of a clone that was thrown away. An older image may also still have what a gap
was stated for: that gap was about something all the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.domain.journal import EdgeEvent, GapFound
from tests.simulation.findings import Check
from tests.simulation.ward import Key, Ward

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed."""
    held = {(item.event.epoch, item.event.seq) for item in auditor.journaled()}
    gaps = final_gaps(auditor)
    for ward in auditor.wards:
        keys = {(said.event.epoch, said.event.seq): said for said in ward.said}
        missing = {key: said for key, said in keys.items() if key not in held}
        unreadable = missing.keys() & ward.unreadable
        gone = {key for key, said in missing.items() if ward.went_with_a_disk(said)}
        _audit_unreadable(auditor, unreadable - gone, held, gaps)
        if not ward.is_clone:
            _audit_lost_stores(auditor, ward, gaps)
    came: set[Key] = set()
    for entry in auditor.entries:
        match entry.body:
            case EdgeEvent(event=event):
                came.add((event.epoch, event.seq))
            case GapFound(final=True) as gap:
                _audit_gap(auditor, gap, came)
            case _:
                pass
    for epoch, first, last in auditor.rows(
        "SELECT epoch, from_seq, to_seq FROM gaps WHERE final_at_ms IS NULL AND filled_at_ms IS NULL"
    ):
        auditor.find(Check.GAP_MEANS_LOSS, f"{epoch}: {first}–{last} neither fills nor is it final")


def final_gaps(auditor: Auditor) -> list[GapFound]:
    """What the journal says is lost for good."""
    bodies = [entry.body for entry in auditor.entries]
    return [body for body in bodies if isinstance(body, GapFound) and body.final]


def is_stated(gaps: Sequence[GapFound], epoch: str, seq: int) -> bool:
    """Whether an event is in a final gap."""
    return any(
        gap.epoch == epoch and gap.from_seq <= seq and (gap.to_seq is None or seq <= gap.to_seq)
        for gap in gaps
    )


def _audit_unreadable(auditor: Auditor, keys: set[Key], held: set[Key], gaps: Sequence[GapFound]) -> None:
    """What was damaged or pruned before it came is stated, wherever the gateway knows of its epoch at all."""
    known = {epoch for epoch, _ in held}
    for epoch, seq in sorted(keys):
        if epoch in known and not is_stated(gaps, epoch, seq):
            auditor.find(Check.GAP_MEANS_LOSS, f"{epoch}/{seq} can be read by nobody, and no gap tells of it")


def _audit_lost_stores(auditor: Auditor, ward: Ward, gaps: Sequence[GapFound]) -> None:
    """Of a disk that was lost with events on it that never came, a gap tells, where the gateway knew of that disk.

    It learns of the loss by a store that begins anew, and says so by what it knew then: what an image of that disk brings
    later, or brings a journal that was itself lost since, came too late for that. Beside a clone nobody can tell whose
    disk it was: the gap may be the clone's. Nor can anybody where the beginning straggled in behind that of a later store:
    the gap may be of any run, but is stated by then, and not before that disk was known.
    """
    of_clones = {
        said.event.epoch
        for other in auditor.wards
        if other.is_clone and other.plan.agent == ward.plan.agent
        for said in other.said
    }
    places = {(entry.event.epoch, entry.event.seq): place for place, entry in enumerate(auditor.journaled())}
    for store, mishap in enumerate(ward.mishaps):
        successor = _successor_heard_of(ward, store, places)
        if mishap.by_image or successor is None:
            continue
        told_at = min(places[key] for key in _keys(ward, successor) if key in places)
        is_overtaken = any(
            places.get(key, told_at) < told_at
            for later in range(successor + 1, len(ward.bases))
            for key in _keys(ward, later)
        )
        own = [said.event for said in ward.said if said.store == store]
        epochs = {event.epoch for event in own} | of_clones
        known_at = min((places.get(key, told_at) for key in _keys(ward, store)), default=told_at)
        missing = [event for event in own if (event.epoch, event.seq) not in places]
        is_stated = any(gap.epoch in epochs for gap in gaps) or (
            is_overtaken and _is_gap_stated_between(auditor, ward, known_at, told_at)
        )
        if known_at < told_at and missing and not is_stated:
            first = missing[0]
            auditor.find(
                Check.GAP_MEANS_LOSS,
                f"{ward.name}: {first.epoch}/{first.seq} and {len(missing) - 1} more went with a disk, and no gap"
                " tells of it",
            )


def _is_gap_stated_between(auditor: Auditor, ward: Ward, from_place: int, to_place: int) -> bool:
    """Whether a final gap of that agent was stated after one event came and before another did, by places in the journal."""
    place = -1
    for entry in auditor.entries:
        match entry.body:
            case EdgeEvent():
                place += 1
            case GapFound(final=True) as gap if (
                gap.agent == ward.plan.agent and from_place <= place < to_place
            ):
                return True
            case _:
                pass
    return False


def _keys(ward: Ward, store: int) -> list[Key]:
    """What an agent committed to one of its stores."""
    return [(said.event.epoch, said.event.seq) for said in ward.said if said.store == store]


def _successor_heard_of(ward: Ward, store: int, places: Mapping[Key, int]) -> int | None:
    """The first store that began anew after that one and of which anything came; None where an image came before."""
    for later in range(store + 1, len(ward.bases)):
        if ward.mishaps[later - 1].by_image:
            return None
        if any(key in places for key in _keys(ward, later)):
            return later
    return None


def _audit_gap(auditor: Auditor, gap: GapFound, came: set[Key]) -> None:
    """A gap must be about something that had not come when it was stated."""
    own = [ward for ward in auditor.wards if ward.plan.agent == gap.agent]
    if gap.to_seq is not None:
        keys = {(gap.epoch, seq) for seq in range(gap.from_seq, gap.to_seq + 1)} - came
        if not any(_is_lost(ward, keys) for ward in own):
            auditor.find(Check.GAP_MEANS_LOSS, f"{gap}: nothing of it was lost")
        return
    is_disk_lost = any(not mishap.by_image for ward in own if not ward.is_clone for mishap in ward.mishaps)
    unreadable = set[Key]().union(*(ward.unreadable for ward in own))
    is_read_by_nobody = not unreadable.isdisjoint(_tail(own, gap, came))
    if not is_disk_lost and not is_read_by_nobody:
        auditor.find(Check.GAP_MEANS_LOSS, f"{gap}: no disk of that agent was lost, nor anything after that")
    known = sorted(seq for epoch, seq in came if epoch == gap.epoch and seq >= gap.from_seq)
    if known:
        auditor.find(Check.GAP_MEANS_LOSS, f"{gap}: {known} had come")


def _is_lost(ward: Ward, keys: set[Key]) -> bool:
    """Whether one of the events was damaged on this agent's disk, pruned, or went with the disk."""
    return not keys.isdisjoint(ward.unreadable) or any(
        (said.event.epoch, said.event.seq) in keys and ward.went_with_a_disk(said) for said in ward.said
    )


def _tail(wards: Sequence[Ward], gap: GapFound, came: set[Key]) -> Iterator[Key]:
    """What an open gap may be about: what its agent committed from there on, and had not come.

    Of a run that was pruned whole the gateway knows nothing: its events are in the tail of the run that began last there,
    beside a clone the clone's.
    """
    said = sorted((said for ward in wards for said in ward.said), key=lambda said: said.at_ns)
    keys = [(said.event.epoch, said.event.seq) for said in said]
    since = itertools.dropwhile(lambda key: key != (gap.epoch, gap.from_seq - 1), keys)
    return (key for key in since if key not in came)
