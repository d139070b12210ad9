"""The gateway's side of delivery, one test for each sentence of the protocol's section 3.1 to 3.5."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from edge_agent.wire.event import AgentStarted, Event, Position, Unrecognised
from edge_agent.wire.status import Ack, GoneRange, Health, Predecessor
from gateway.domain.stream import (
    Ahead,
    Conflict,
    Duplicate,
    Late,
    Next,
    Verdict,
    answer,
    demand_reset,
    judge,
)
from tests.scripted_agent import ScriptedAgent, Store, note, ulid

E, F, G = ulid(1), ulid(2), ulid(3)


@dataclass
class Holding:
    """`Holdings` in memory, and a journal that keeps to verdicts."""

    events: list[Event] = field(default_factory=list)
    refused: set[Position] = field(default_factory=set)

    def hash_at(self, epoch: str, seq: int) -> str | None:
        return next((e.hash for e in self.events if (e.epoch, e.seq) == (epoch, seq)), None)

    def last(self, epoch: str) -> Position | None:
        return next((e.position for e in reversed(self.events) if e.epoch == epoch), None)

    def newest(self) -> Position | None:
        return self.events[-1].position if self.events else None

    def latest_epoch(self) -> str | None:
        epochs = list(dict.fromkeys(e.epoch for e in self.events))
        return epochs[-1] if epochs else None

    def is_refused(self, position: Position) -> bool:
        return position in self.refused

    def find_hash(self, digest: str) -> Position | None:
        return next((e.position for e in self.events if e.hash == digest), None)

    def offer(self, event: Event, health: Health | None = None) -> Verdict:
        verdict = judge(event, self, health)
        if isinstance(verdict, Next):
            self.events.append(event)
        return verdict

    def take_all(self, store: Store) -> None:
        for event in store.events:
            if not isinstance(self.offer(event), Next | Duplicate):
                raise AssertionError(f"not taken: {event.epoch}/{event.seq}")


def run_of(epoch: str, notes: int, store: Store | None = None) -> Store:
    """A store with one more run of `notes` events after its start."""
    store = store or Store()
    store.start(epoch)
    for _ in range(notes):
        store.add(note())
    return store


def health_of(store: Store, **changes: object) -> Health:
    return replace(ScriptedAgent(store).health(), **changes)  # type: ignore[arg-type]


def unreadable(event: Event) -> Event:
    """As a gateway sees it that does not know this version's content."""
    return replace(event, body=Unrecognised("too young"))


# 3.1: next, duplicate, dropped


def test_the_first_event_of_a_first_store_is_next_and_loses_nothing() -> None:
    assert Holding().offer(run_of(E, 0).events[0]) == Next()


def test_the_following_seq_of_a_held_epoch_is_next() -> None:
    store, held = run_of(E, 2), Holding()
    assert [held.offer(event) for event in store.events] == [Next(), Next(), Next()]


def test_what_is_held_already_is_a_duplicate() -> None:
    store, held = run_of(E, 1), Holding()
    held.take_all(store)
    assert [held.offer(event) for event in store.events] == [Duplicate(), Duplicate()]


def test_an_event_ahead_of_its_turn_is_dropped_and_the_hole_is_named() -> None:
    store, held = run_of(E, 5), Holding()
    held.offer(store.events[0])
    verdict = held.offer(store.events[4])
    assert isinstance(verdict, Ahead)
    assert verdict.missing is not None
    assert (verdict.missing.epoch, verdict.missing.from_seq, verdict.missing.to_seq) == (E, 2, 4)


def test_a_new_epoch_after_an_event_that_is_held_is_next() -> None:
    store, held = run_of(E, 2), Holding()
    held.take_all(store)
    assert held.offer(run_of(F, 0, store).events[-1]) == Next()


def test_a_new_epoch_waits_until_the_event_before_it_is_held() -> None:
    store = run_of(F, 0, run_of(E, 3))
    held = Holding(store.events[:2])
    verdict = held.offer(store.events[-1])
    assert isinstance(verdict, Ahead)
    assert verdict.missing is not None
    assert (verdict.missing.epoch, verdict.missing.from_seq, verdict.missing.to_seq) == (E, 3, 4)


def test_a_later_seq_of_an_unknown_epoch_is_dropped() -> None:
    assert isinstance(Holding().offer(run_of(E, 3).events[2]), Ahead)


def test_a_start_that_cannot_be_read_is_next_where_its_link_leads_to_an_event_that_is_held() -> None:
    store = run_of(E, 2)
    held = Holding()
    held.take_all(store)
    start = unreadable(store.start(F))
    assert held.offer(start) == Next()


def test_a_start_that_cannot_be_read_waits_while_what_it_follows_is_not_held() -> None:
    store = run_of(E, 2)
    held = Holding(store.events[:2])
    assert isinstance(held.offer(unreadable(store.start(F))), Ahead)


def test_an_unreadable_start_of_a_first_store_is_next() -> None:
    assert held_next(Holding().offer(unreadable(run_of(E, 0).events[0])))


def held_next(verdict: Verdict) -> Next:
    assert isinstance(verdict, Next)
    return verdict


# 3.1: answers


def test_a_batch_is_answered_with_its_last_event_that_is_held() -> None:
    store, held = run_of(E, 4), Holding()
    judged = [(event, held.offer(event)) for event in (*store.events[:3], store.events[4])]
    assert answer(held, judged, None) == Ack(E, E, 3, store.events[2].hash, reset=False)


def test_a_late_duplicate_is_answered_with_itself_so_it_moves_nobody_back() -> None:
    store, held = run_of(E, 4), Holding()
    held.take_all(store)
    judged = [(event, held.offer(event)) for event in store.events[:2]]
    assert answer(held, judged, None) == Ack(E, E, 2, store.events[1].hash, reset=False)


def test_a_batch_wholly_dropped_is_answered_with_the_last_held_of_its_epoch() -> None:
    store, held = run_of(E, 6), Holding()
    held.offer(store.events[0])
    judged = [(event, held.offer(event)) for event in store.events[4:6]]
    assert answer(held, judged, None) == Ack(E, E, 1, store.events[0].hash, reset=False)


def test_a_batch_wholly_dropped_of_an_unknown_epoch_is_answered_with_the_newest_of_the_agent() -> None:
    store = run_of(F, 3, run_of(E, 2))
    held = Holding(store.events[:2])
    judged = [(event, held.offer(event)) for event in store.events[-2:]]
    assert answer(held, judged, None) == Ack(F, E, 2, store.events[1].hash, reset=False)


def test_nothing_held_is_said_as_nothing() -> None:
    judged: list[tuple[Event, Verdict]] = [(event, Ahead(None)) for event in run_of(E, 3).events[2:]]
    assert answer(Holding(), judged, None) == Ack(E, None, None, None, reset=False)


def test_a_conflict_is_answered_with_the_gateways_own_hash() -> None:
    ours, theirs = run_of(E, 3), run_of(E, 1)
    held = Holding()
    held.take_all(ours)
    other = theirs.add(note("another"))
    judged = [(other, held.offer(other))]
    assert answer(held, judged, health_of(theirs)) == Ack(E, E, 3, ours.events[2].hash, reset=False)


def test_a_conflict_in_an_epoch_that_the_agent_has_left_is_answered_as_safe_in_quarantine() -> None:
    ours, theirs = run_of(E, 3), run_of(E, 1)
    held = Holding()
    held.take_all(ours)
    other = theirs.add(note("another"))
    theirs.start(F)
    judged = [(other, held.offer(other))]
    assert answer(held, judged, health_of(theirs)) == Ack(E, E, 3, other.hash, reset=False)


# 3.2: resets


def test_a_health_whose_acked_is_held_calls_for_nothing() -> None:
    store, held = run_of(E, 3), Holding()
    held.take_all(store)
    assert demand_reset(held, health_of(store, acked=store.events[1].position)) is None


def test_a_health_without_acked_calls_for_nothing() -> None:
    assert demand_reset(Holding(), health_of(run_of(E, 3))) is None


def test_an_acked_that_is_not_held_is_reset_to_the_newest_held() -> None:
    store = run_of(F, 3, run_of(E, 3))
    held = Holding(store.events[:2])
    reset = demand_reset(held, health_of(store, acked=store.events[-1].position))
    assert reset == Ack(F, E, 2, store.events[1].hash, reset=True)


def test_an_acked_with_another_hash_is_reset() -> None:
    store, held = run_of(E, 3), Holding()
    held.take_all(store)
    other = replace(store.events[1].position, hash="0" * 64)
    assert demand_reset(held, health_of(store, acked=other)) == Ack(E, E, 4, store.events[3].hash, reset=True)


def test_an_acked_that_lies_in_quarantine_calls_for_nothing() -> None:
    store, held = run_of(E, 3), Holding()
    held.take_all(store)
    other = replace(store.events[1].position, hash="0" * 64)
    held.refused.add(other)
    assert demand_reset(held, health_of(store, acked=other)) is None


def test_an_acked_inside_a_stated_gap_calls_for_nothing() -> None:
    store = run_of(E, 9)
    held = Holding([store.events[6]])
    assert demand_reset(held, health_of(store, acked=store.events[3].position)) is None


def test_a_gateway_that_holds_nothing_resets_to_nothing() -> None:
    store = run_of(E, 3)
    reset = demand_reset(Holding(), health_of(store, acked=store.events[2].position))
    assert reset == Ack(E, None, None, None, reset=True)


def test_a_reset_names_an_event_of_the_agents_own_epoch_while_a_clone_is_newer() -> None:
    store = run_of(E, 3)
    clone = run_of(F, 2, store.image())
    held = Holding()
    held.take_all(clone)
    reset = demand_reset(held, health_of(store, acked=Position(E, 9, "0" * 64)))
    assert reset == Ack(E, E, 4, store.events[3].hash, reset=True)


def test_a_last_will_calls_for_nothing() -> None:
    assert demand_reset(Holding(), Health(online=False, epoch=E, boot="b")) is None


# 3.3: gone for good


def test_what_lies_before_first_is_a_final_gap_and_the_link_is_taken_as_given() -> None:
    store = run_of(E, 9)
    held = Holding(store.events[:2])
    verdict = held_next(held.offer(store.events[6], health_of(store, first=store.events[6].position)))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 3, 6)]
    assert not verdict.chain_broken


def test_a_fresh_gateway_begins_at_first() -> None:
    store = run_of(E, 9)
    verdict = held_next(Holding().offer(store.events[6], health_of(store, first=store.events[6].position)))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 1, 6)]


def test_a_first_in_a_later_epoch_leaves_an_open_tail_of_the_one_that_is_held() -> None:
    store = run_of(G, 5, run_of(F, 5, run_of(E, 5)))
    held = Holding(store.events[:3])
    first = store.events[-2]
    verdict = held_next(held.offer(first, health_of(store, first=first.position)))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 4, None), (G, 1, 4)]


def test_first_is_only_the_event_with_that_hash() -> None:
    store = run_of(E, 9)
    other = replace(store.events[6].position, hash="0" * 64)
    assert isinstance(Holding().offer(store.events[6], health_of(store, first=other)), Ahead)


def test_the_event_after_a_gone_range_is_next_when_all_before_the_range_is_held() -> None:
    store = run_of(E, 9)
    held = Holding(store.events[:2])
    health = health_of(store, gone=(GoneRange(E, 3, 3), GoneRange(E, 4, 5)))
    verdict = held_next(held.offer(store.events[5], health))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 3, 5)]


def test_the_event_after_a_gone_range_waits_for_what_is_missing_before_the_range() -> None:
    store = run_of(E, 9)
    held = Holding(store.events[:2])
    assert isinstance(held.offer(store.events[5], health_of(store, gone=(GoneRange(E, 5, 5),))), Ahead)


def test_a_new_epoch_is_next_when_the_event_it_follows_is_gone() -> None:
    store = run_of(F, 1, run_of(E, 3))
    held = Holding(store.events[:3])
    verdict = held_next(held.offer(store.events[4], health_of(store, gone=(GoneRange(E, 4, 4),))))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 4, 4)]
    assert not verdict.forked


def test_a_run_that_is_gone_as_a_whole_stops_nobody_whose_acked_is_held() -> None:
    store = run_of(G, 1, run_of(F, 1, run_of(E, 3)))
    held = Holding(store.events[:4])
    start, gone = store.events[6], (GoneRange(F, 1, 2),)
    assert isinstance(held.offer(start, health_of(store, gone=gone, acked=None)), Ahead)
    verdict = held_next(held.offer(start, health_of(store, gone=gone, acked=store.events[3].position)))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 5, None), (F, 1, 2)]


def test_what_came_since_the_acked_of_the_newest_health_is_not_stated_as_lost() -> None:
    store = run_of(G, 1, run_of(F, 1, run_of(E, 3)))
    held = Holding(store.events[:4])
    health = health_of(store, gone=(GoneRange(F, 1, 2),), acked=store.events[1].position)
    verdict = held_next(held.offer(store.events[6], health))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 5, None), (F, 1, 2)]


def test_a_gone_beginning_that_says_what_it_came_after_loses_what_is_gone_and_no_more() -> None:
    store = run_of(G, 1, run_of(F, 1, run_of(E, 3)))
    held = Holding(store.events[:3])
    gone = (GoneRange(E, 4, 4), GoneRange(F, 1, 2, Predecessor(E, 4)), GoneRange(G, 1, 1, Predecessor(F, 2)))
    verdict = held_next(held.offer(store.events[7], health_of(store, gone=gone, acked=None)))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [
        (E, 4, 4),
        (F, 1, 2),
        (G, 1, 1),
    ]


def test_an_event_after_a_gone_beginning_waits_for_what_that_came_after() -> None:
    store = run_of(F, 2, run_of(E, 3))
    held = Holding(store.events[:3])
    health = health_of(store, gone=(GoneRange(F, 1, 1, Predecessor(E, 4)),), acked=store.events[2].position)
    assert isinstance(held.offer(store.events[5], health), Ahead)


def test_nothing_is_stated_before_a_gone_beginning_when_all_that_it_came_after_is_held() -> None:
    store = run_of(F, 2, run_of(E, 3))
    held = Holding(store.events[:4])
    health = health_of(store, gone=(GoneRange(F, 1, 1, Predecessor(E, 4)),), acked=None)
    verdict = held_next(held.offer(store.events[5], health))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(F, 1, 1)]


def test_a_first_in_a_later_epoch_loses_to_a_known_end_where_the_agent_says_what_its_beginning_came_after() -> (
    None
):
    store = run_of(F, 2, run_of(E, 3))
    held = Holding(store.events[:3])
    health = health_of(
        store,
        first=store.events[5].position,
        gone=(GoneRange(E, 1, 4), GoneRange(F, 1, 1, Predecessor(E, 4))),
    )
    verdict = held_next(held.offer(store.events[5], health))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 4, 4), (F, 1, 1)]


def test_an_agent_that_leads_from_beginning_to_beginning_in_circles_holds_nobody_up() -> None:
    store = run_of(G, 1, run_of(F, 1))
    gone = (GoneRange(F, 1, 2, Predecessor(E, 1)), GoneRange(E, 1, 1, Predecessor(F, 2)))
    assert isinstance(Holding().offer(store.events[2], health_of(store, gone=gone)), Ahead)


def test_a_replaced_store_loses_what_the_old_one_had_not_delivered() -> None:
    held = Holding()
    held.take_all(run_of(E, 3))
    verdict = held_next(held.offer(run_of(F, 0).events[0]))
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 5, None)]
    assert not verdict.chain_broken


def test_an_event_of_a_stated_gap_that_somebody_still_has_is_late_and_acked_as_safe() -> None:
    store = run_of(E, 9)
    held = Holding(store.events[:2])
    held.offer(store.events[6], health_of(store, first=store.events[6].position))
    late = store.events[3]
    assert held.offer(late, health_of(store, first=late.position)) == Late()
    assert answer(held, [(late, Late())], None) == Ack(E, E, late.seq, late.hash, reset=False)


def test_a_new_epoch_that_follows_an_event_of_a_stated_gap_is_next() -> None:
    store = run_of(E, 9)
    image = store.image()
    del image.events[5:]
    held = Holding(store.events[:2])
    held.offer(store.events[6], health_of(store, first=store.events[6].position))
    assert held.offer(image.start(F)) == Next(forked=True)


def test_a_gone_beginning_proves_nothing_to_a_gateway_that_holds_nothing() -> None:
    store = run_of(F, 2, run_of(E, 3))
    assert isinstance(Holding().offer(store.events[5], health_of(store, gone=(GoneRange(F, 1, 1),))), Ahead)


# 3.4: conflicts and broken links


def test_a_held_key_with_another_hash_is_a_conflict() -> None:
    ours, theirs = run_of(E, 3), run_of(E, 1)
    held = Holding()
    held.take_all(ours)
    assert held.offer(theirs.add(note("another"))) == Conflict(ours.events[2].hash)


def two_histories() -> tuple[Holding, Store]:
    """A gateway that holds one history of a run up to seq 3, and a store with another after seq 1."""
    ours, theirs = run_of(E, 2), run_of(E, 0)
    theirs.add(note("another"))
    theirs.add(note("and on"))
    held = Holding()
    held.take_all(ours)
    return held, theirs


def test_what_follows_another_history_waits_until_that_lies_in_quarantine() -> None:
    held, theirs = two_histories()
    conflicting, following = theirs.events[2], theirs.add(note())
    assert [held.offer(event) for event in (conflicting, following)] == [Ahead(None)] * 2
    for event in theirs.events[1:3]:
        assert isinstance(held.offer(event), Conflict)
        held.refused.add(event.position)
    assert held.offer(following) == Next(chain_broken=True)
    assert held.offer(theirs.start(F)) == Next()


def test_a_new_epoch_after_another_history_contradicts_and_waits_for_it_too() -> None:
    held, theirs = two_histories()
    start = theirs.start(F)
    assert held.offer(start) == Ahead(None)
    held.refused.add(theirs.events[2].position)
    verdict = held_next(held.offer(start))
    assert verdict.contradicts
    assert verdict.chain_broken
    assert not verdict.lost


@pytest.mark.parametrize("change", ["acked", "first", "gone"])
def test_another_history_that_will_not_come_is_stated_as_lost(change: str) -> None:
    held, theirs = two_histories()
    following = theirs.add(note())
    health = {
        "acked": health_of(theirs, acked=theirs.events[2].position),
        "first": health_of(theirs, first=following.position),
        "gone": health_of(theirs, acked=theirs.events[0].position, gone=(GoneRange(E, 2, 3),)),
    }[change]
    verdict = held_next(held.offer(following, health))
    assert verdict.chain_broken
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 1, 3)]


def test_a_conflict_after_another_history_that_will_not_come_states_that_as_lost() -> None:
    held, theirs = two_histories()
    health = health_of(theirs, acked=theirs.events[0].position, gone=(GoneRange(E, 2, 2),))
    verdict = held.offer(theirs.events[2], health)
    assert isinstance(verdict, Conflict)
    assert [(lost.epoch, lost.from_seq, lost.to_seq) for lost in verdict.lost] == [(E, 1, 2)]


def test_a_chain_that_was_tampered_with_goes_on_as_soon_as_its_agent_shows_that_nothing_is_missing() -> None:
    ours, theirs = run_of(E, 1), run_of(E, 0)
    theirs.add(note("another"))
    held = Holding()
    held.take_all(ours)
    broken = theirs.add(note())
    assert held.offer(broken) == Ahead(None)
    assert held_next(held.offer(broken, health_of(theirs, acked=ours.events[1].position))).chain_broken


def test_a_first_store_must_begin_with_its_seed() -> None:
    stranger = Store(agent="gw-02")
    start = stranger.start(E)
    assert held_next(Holding().offer(replace(start, agent="gw-01"))).chain_broken


# 3.5: restored and cloned images


def test_a_new_epoch_that_takes_up_before_the_end_is_a_fork() -> None:
    store = run_of(E, 1)
    image = store.image()
    store.add(note())
    held = Holding()
    held.take_all(store)
    assert held.offer(image.start(F)) == Next(forked=True)


def test_a_second_epoch_after_the_same_end_is_a_fork() -> None:
    store = run_of(E, 1)
    image = store.image()
    held = Holding()
    held.take_all(run_of(F, 1, store))
    assert held.offer(image.start(G)) == Next(forked=True)


def test_an_image_that_is_restored_sends_duplicates_and_each_is_acked() -> None:
    store = run_of(E, 3)
    image = store.image()
    held = Holding()
    held.take_all(store)
    for event in image.events:
        verdict = held.offer(event)
        assert verdict == Duplicate()
        assert answer(held, [(event, verdict)], None).position == event.position


def test_an_epoch_that_goes_on_after_another_followed_it_means_two_agents() -> None:
    store = run_of(E, 1)
    clone = run_of(F, 0, store.image())
    held = Holding()
    held.take_all(clone)
    assert held.offer(store.add(note())) == Next(second_agent=True)
    assert held.offer(clone.add(note())) == Next()


def test_a_replaced_store_whose_old_one_goes_on_means_two_agents() -> None:
    old = run_of(E, 1)
    held = Holding()
    held.take_all(old)
    held.offer(run_of(F, 0).events[0])
    assert held.offer(old.add(note())) == Next(second_agent=True)


def test_a_start_names_what_it_follows() -> None:
    """The scripted store itself: what these tests stand on."""
    store = run_of(F, 0, run_of(E, 1))
    start = store.events[-1]
    assert isinstance(start.body, AgentStarted)
    assert start.body.after == store.events[1].position
    assert start.prev == store.events[1].hash
