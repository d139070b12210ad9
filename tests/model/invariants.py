"""What must hold: in every journal, in every moment, and when everything has come to rest.

Written from what is promised, not from how it is kept: "accounted for" is the one idea. An event is accounted for when
the journal holds it, keeps it in quarantine, names it in a final gap, or shows a final gap right before the next event
of its store: where a range is pruned or damaged as a whole, nobody can name what was in it.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from tests.model.protocol import Protocol
from tests.model.values import Event, Gap, Journal, Refused
from tests.model.world import World


@cache
def wrong_in_journal(journal: Journal) -> str | None:
    """Nothing doubled, each epoch in order, no hole but a stated one."""
    seen: set[tuple[int, int]] = set()
    reached: dict[int, int] = {}
    gaps: list[Gap] = []
    is_after_gap = False
    for entry in journal.entries:
        if isinstance(entry, Gap):
            gaps.append(entry)
            is_after_gap = True
            continue
        if isinstance(entry, Refused):
            continue
        if entry.key in seen:
            return f"{entry} is journaled twice"
        if entry.seq < reached.get(entry.epoch, 0):
            return f"{entry} is out of order"
        if entry.before is not None:
            before = entry.before.key
            if before not in seen and not is_after_gap and not any(gap.covers(before) for gap in gaps):
                return f"the hole before {entry} is stated nowhere"
        seen.add(entry.key)
        reached[entry.epoch] = entry.seq
        is_after_gap = False
    return None


@cache
def stated_at(journal: Journal) -> frozenset[Event]:
    """The events right after a stated gap."""
    return frozenset(
        entry for gap, entry in pairwise(journal.entries) if isinstance(gap, Gap) and isinstance(entry, Event)
    )


@cache
def unaccounted(chain: tuple[Event, ...], journal: Journal) -> tuple[Event, ...]:
    """The events of a store that the journal neither has nor states as lost."""
    missing: list[Event] = []
    is_bridged = False
    for event in reversed(chain):
        if journal.held.get(event.key) is event:
            is_bridged = event in stated_at(journal)
        elif event not in journal.refused and not journal.is_stated(event.key) and not is_bridged:
            missing.append(event)
    return tuple(missing)


def wrong_now(world: World) -> str | None:
    """What must hold in every moment, in words, or None."""
    journal, tally = world.gateway.journal, world.tally
    found = wrong_in_journal(journal)
    if found is not None:
        return found
    if not tally.is_resumed:
        for event in journal.refused:
            held = journal.held.get(event.key)
            if held is not None and held is not event:
                return f"{event} and {held} bear one key, and no running machine was ever resumed"
    if tally.is_forgetful:
        return None
    for agent in world.agents:
        lost = unaccounted(agent.chain[: agent.acked], journal)
        if lost:
            return f"the agent takes {lost[-1]} as safe, which the gateway neither holds nor states as lost"
    promised = {ack.event for inbox in world.inboxes for ack in inbox}
    if world.retained is not None:
        promised.add(world.retained.event)
    for named in promised:
        if named is not None and unaccounted((named,), journal):
            return f"an ack names {named}, which the gateway neither holds nor states as lost"
    return None


def is_agreed(world: World, protocol: Protocol) -> bool:
    """Nothing is under way, everything is acked, and the gateway has no doubt about it."""
    if world.up or any(world.inboxes):
        return False
    journal = world.gateway.journal
    return all(
        agent.acked == len(agent.chain) and protocol.demand_reset(journal, protocol.beat(agent)) is None
        for agent in world.agents
    )


def wrong_when_agreed(world: World) -> str | None:
    """What the accounts say when agent and gateway believe that all is well."""
    journal = world.gateway.journal
    for agent in world.agents:
        missing = unaccounted(agent.chain, journal)
        if missing:
            return f"{missing[-1]} is lost, and nobody says so"
    if world.tally.is_owed and not any(gap.to_seq is None for gap in journal.gaps):
        return "a store was lost with undelivered events, and nobody says so"
    return None
