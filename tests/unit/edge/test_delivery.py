"""The sender, input by input: one test for each sentence of the delivery protocol's agent side."""

from __future__ import annotations

import pytest

from edge_agent.domain.delivery import (
    EVENTS_AHEAD_MAX,
    NOT_PLACED,
    AckOutcome,
    DeliveryMode,
    Match,
    Placed,
    ReportPolicy,
    Sender,
    Span,
    spans,
)
from edge_agent.domain.units import NS_PER_S, MonoNs
from edge_agent.wire.status import Ack

EPOCH = "01PRESENT0"
FORMER = "01FORMER00"


def s(seconds: float) -> MonoNs:
    return MonoNs(round(seconds * NS_PER_S))


def sending(tail: int, *, acked: int = 0, receive_maximum: int = 1000) -> Sender:
    """A sender past its wait for the retained ack, with `tail` events stored."""
    sender = Sender(DeliveryMode.GATEWAY, EPOCH, tail=tail, acked=acked)
    sender.connect(receive_maximum, s(0))
    sender.receive_ack(ack(FORMER, 1), NOT_PLACED, s(0))
    return sender


def ack(epoch: str | None, seq: int | None, *, reset: bool = False, to: str = EPOCH) -> Ack:
    return Ack(to, epoch, seq, None if epoch is None else "h", reset)


NOTHING_HELD = ack(None, None, reset=True)


def test_waits_a_second_for_the_retained_ack_then_sends_in_order() -> None:
    sender = Sender(DeliveryMode.GATEWAY, EPOCH, tail=3)
    sender.connect(20, s(10))
    assert sender.take_sends(s(10.999)) == []
    assert sender.next_deadline(s(10.5)) == s(11)
    assert sender.take_sends(s(11)) == [1, 2, 3]


def test_a_retained_ack_ends_the_wait_and_saves_what_is_held() -> None:
    sender = Sender(DeliveryMode.GATEWAY, EPOCH, tail=3)
    sender.connect(20, s(10))
    assert sender.receive_ack(ack(EPOCH, 2), Placed(Match.HELD, 2), s(10.1)) is AckOutcome.FORWARD
    assert sender.take_sends(s(10.1)) == [3]


def test_sends_nothing_while_disconnected() -> None:
    assert Sender(DeliveryMode.GATEWAY, EPOCH, tail=3).take_sends(s(100)) == []


def test_sends_at_most_256_beyond_acked_and_what_is_gone_does_not_count() -> None:
    sender = sending(1000)
    sender.lose(Span(1, 100))
    assert sender.take_sends(s(0)) == list(range(101, 101 + EVENTS_AHEAD_MAX))
    sender.receive_ack(ack(EPOCH, 110), Placed(Match.HELD, 110), s(0.1))
    assert sender.take_sends(s(0.1)) == list(range(357, 367))


def test_goes_back_to_first_where_what_follows_acked_was_pruned_and_is_not_held_up_by_it() -> None:
    sender = Sender(DeliveryMode.GATEWAY, EPOCH, first=1001, tail=2000, acked=2000)
    sender.connect(1000, s(0))
    assert sender.receive_ack(NOTHING_HELD, NOT_PLACED, s(0)) is AckOutcome.BACK
    assert (sender.acked, sender.ever_acked) == (0, 2000)
    assert sender.take_sends(s(0)) == list(range(1001, 1001 + EVENTS_AHEAD_MAX))
    sender.receive_ack(ack(EPOCH, 1100), Placed(Match.HELD, 1100), s(0.1))
    assert sender.take_sends(s(0.1)) == list(range(1257, 1357))


def test_what_is_pruned_while_it_is_sent_again_is_skipped_and_its_damage_forgotten() -> None:
    sender = sending(2000)
    sender.lose(Span(5, 5))
    assert sender.take_sends(s(0))[-1] == 257
    sender.prune(301)
    sender.lose(Span(300, 300))
    assert sender.take_sends(s(0)) == list(range(301, 557))
    sender.handle_timer(s(2))
    assert sender.take_sends(s(2))[0] == 301


def test_counts_every_publish_against_the_receive_maximum() -> None:
    sender = sending(100, receive_maximum=5)
    sender.count_publish()
    sender.count_publish()
    assert sender.take_sends(s(0)) == [1, 2, 3]
    assert sender.take_sends(s(0)) == []
    sender.receive_puback(1, s(0), is_delivered=True)
    sender.receive_puback(None, s(0), is_delivered=True)
    assert sender.take_sends(s(0)) == [4, 5]


def test_a_puback_moves_nothing_when_a_gateway_acks() -> None:
    sender = sending(3)
    sender.take_sends(s(0))
    assert not sender.receive_puback(1, s(0), is_delivered=True)
    assert sender.acked == 0


def test_resends_after_2_4_8_16_30_30_seconds_without_progress() -> None:
    sender = sending(2)
    now, waits = s(0), []
    assert sender.take_sends(now) == [1, 2]
    for _ in range(6):
        deadline = sender.next_deadline(now)
        assert deadline is not None
        waits.append((deadline - now) // NS_PER_S)
        sender.handle_timer(MonoNs(deadline - 1))
        assert sender.take_sends(MonoNs(deadline - 1)) == []
        now = deadline
        sender.handle_timer(now)
        assert sender.take_sends(now) == [1, 2]
    assert waits == [2, 4, 8, 16, 30, 30]


def test_what_nobody_heard_is_sent_again_as_soon_as_somebody_listens() -> None:
    """A gateway that was away for a moment must not wait for a pause that has grown meanwhile."""
    sender = sending(2)
    assert sender.take_sends(s(1)) == [1, 2]
    for place in (1, 2):
        sender.receive_puback(place, s(1), is_delivered=False)
    assert sender.take_sends(s(1.5)) == []
    sender.note_listener(s(1.5))
    assert sender.take_sends(s(1.5)) == [1, 2]
    sender.note_listener(s(1.6))
    assert sender.take_sends(s(1.6)) == [], "only the change counts"


def test_a_listener_that_comes_and_goes_with_every_event_starts_no_storm() -> None:
    """Each event heard after one that was not brought the whole window again, and with it several such pairs."""
    sender = sending(40)
    on_their_way, sent = sender.take_sends(s(1)), 40
    for turn in range(1000):
        now = s(1 + turn / 1000)
        place = on_their_way.pop(0)
        sender.receive_puback(place, now, is_delivered=place % 7 == 0)
        again = sender.take_sends(now)
        sent += len(again)
        on_their_way += again
        if not on_their_way:
            break
    assert sent == 80
    sender.note_listener(s(3.1))
    assert sender.take_sends(s(3.1)) == list(range(1, 41)), "nothing is forgotten over it"


def test_an_event_that_is_heard_after_one_that_was_not_brings_both_again() -> None:
    sender = sending(1)
    assert sender.take_sends(s(1)) == [1]
    sender.receive_puback(1, s(1), is_delivered=False)
    sender.extend(2)
    assert sender.take_sends(s(1.2)) == [2]
    sender.receive_puback(2, s(1.2), is_delivered=True)
    assert sender.take_sends(s(1.2)) == [1, 2]


def test_progress_makes_the_next_wait_short_again() -> None:
    sender = sending(3)
    sender.take_sends(s(0))
    sender.handle_timer(s(2))
    sender.take_sends(s(2))
    sender.receive_ack(ack(EPOCH, 1), Placed(Match.HELD, 1), s(3))
    assert sender.next_deadline(s(3)) == s(5)


def test_an_equal_ack_never_sends_again() -> None:
    sender = sending(3, acked=1)
    assert sender.take_sends(s(0)) == [2, 3]
    for reset in (False, True):
        outcome = sender.receive_ack(ack(EPOCH, 1, reset=reset), Placed(Match.HELD, 1), s(0.1))
        assert outcome is AckOutcome.IGNORED
        assert sender.take_sends(s(0.1)) == []


def test_an_older_ack_moves_back_only_as_a_reset() -> None:
    sender = sending(5, acked=4)
    sender.take_sends(s(0))
    assert sender.receive_ack(ack(EPOCH, 2), Placed(Match.HELD, 2), s(0)) is AckOutcome.IGNORED
    assert sender.receive_ack(ack(EPOCH, 2, reset=True), Placed(Match.HELD, 2), s(0)) is AckOutcome.BACK
    assert (sender.acked, sender.ever_acked) == (2, 4)
    assert sender.take_sends(s(0)) == [3, 4, 5]


def test_nothing_held_sends_from_the_first_and_shows_no_acked() -> None:
    sender = sending(3, acked=3)
    assert sender.receive_ack(NOTHING_HELD, NOT_PLACED, s(1)) is AckOutcome.BACK
    assert sender.acked == 0
    assert sender.take_sends(s(1)) == [1, 2, 3]


@pytest.mark.parametrize("match", [Match.UNKNOWN, Match.OTHER_HASH, Match.BEYOND])
def test_a_reset_to_this_run_that_cannot_be_placed_means_that_nothing_is_held(match: Match) -> None:
    sender = sending(3, acked=3)
    outcome = sender.receive_ack(ack(FORMER, 9, reset=True), Placed(match, 2), s(1))
    assert (outcome, sender.acked) == (AckOutcome.BACK, 0)


@pytest.mark.parametrize(
    ("stray", "placed"),
    [
        (ack(FORMER, 9), NOT_PLACED),
        (ack(FORMER, 9), Placed(Match.OTHER_HASH, 2)),
        (ack(FORMER, 9, reset=True, to=FORMER), NOT_PLACED),
        (ack(None, None), NOT_PLACED),
        (ack(None, None, reset=True, to=FORMER), NOT_PLACED),
        (ack(EPOCH, 9), NOT_PLACED),
    ],
)
def test_somebody_elses_acks_and_late_ones_change_nothing(stray: Ack, placed: Placed) -> None:
    sender = sending(3, acked=2)
    sender.take_sends(s(0))
    assert sender.receive_ack(stray, placed, s(0.5)) is AckOutcome.IGNORED
    assert sender.acked == 2
    assert sender.take_sends(s(0.5)) == []


@pytest.mark.parametrize("placed", [Placed(Match.OTHER_HASH, 3), Placed(Match.BEYOND, 5)])
def test_another_history_of_the_present_epoch_forks_and_everything_unacked_is_sent_again(
    placed: Placed,
) -> None:
    sender = sending(5, acked=1)
    sender.take_sends(s(0))
    outcome = sender.receive_ack(ack(EPOCH, 90), placed, s(1))
    assert (outcome, sender.acked) == (AckOutcome.FORKED, 1)
    assert sender.take_sends(s(1)) == [2, 3, 4, 5]


def test_after_the_fork_the_same_ack_is_somebody_elses() -> None:
    sender = sending(5)
    sender.receive_ack(ack(EPOCH, 90), Placed(Match.BEYOND, 5), s(0))
    sender.begin_epoch("01NEXT0000")
    assert sender.receive_ack(ack(EPOCH, 90), Placed(Match.BEYOND, 5), s(0)) is AckOutcome.IGNORED


def test_a_reconnect_sends_again_at_once_and_frees_the_window() -> None:
    sender = sending(3, receive_maximum=3)
    assert sender.take_sends(s(0)) == [1, 2, 3]
    sender.disconnect()
    assert sender.next_deadline(s(1)) is None
    sender.connect(2, s(1))
    sender.receive_ack(ack(EPOCH, 1), Placed(Match.HELD, 1), s(1))
    assert sender.take_sends(s(1)) == [2, 3]


def test_gone_places_are_skipped_and_an_ack_beyond_them_counts() -> None:
    sender = sending(6)
    sender.lose(Span(2, 3))
    sender.lose(Span(6, 6))
    assert sender.take_sends(s(0)) == [1, 4, 5]
    sender.receive_ack(ack(EPOCH, 5), Placed(Match.HELD, 5), s(0))
    assert sender.next_deadline(s(0)) is None, "nothing that can be sent is un-acked"
    sender.extend(7)
    assert sender.take_sends(s(0)) == [7]


def test_in_broker_mode_pubacks_in_order_move_acked() -> None:
    sender = Sender(DeliveryMode.BROKER, EPOCH, tail=4)
    sender.lose(Span(2, 2))
    sender.connect(20, s(0))
    assert sender.take_sends(s(0)) == [1, 3, 4], "there is no ack to wait for"
    assert sender.receive_puback(1, s(0), is_delivered=True)
    assert sender.receive_puback(3, s(0), is_delivered=True)
    assert not sender.receive_puback(4, s(0), is_delivered=False), "refused, or nobody to give it to"
    assert sender.acked == 3
    sender.handle_timer(s(2))
    assert sender.take_sends(s(2)) == [4]
    assert sender.receive_ack(ack(EPOCH, 4), Placed(Match.HELD, 4), s(2)) is AckOutcome.IGNORED


def test_in_broker_mode_a_puback_ahead_of_a_refused_event_does_not_pass_it() -> None:
    sender = Sender(DeliveryMode.BROKER, EPOCH, tail=3)
    sender.connect(20, s(0))
    sender.take_sends(s(0))
    sender.receive_puback(1, s(0), is_delivered=False)
    assert not sender.receive_puback(2, s(0), is_delivered=True)
    assert sender.acked == 0


def is_due(
    policy: ReportPolicy, sender: Sender, now: MonoNs, *, settled: bool = True, unseen: int = 0, pct: int = 0
) -> bool:
    return policy.is_due(sender, now, is_settled=settled, unseen=unseen, outbox_pct=pct)


def test_a_state_report_follows_a_connect_and_then_each_period() -> None:
    policy, sender = ReportPolicy(3600), sending(1)
    assert not is_due(policy, sender, s(0))
    policy.connect()
    assert is_due(policy, sender, s(0))
    policy.reported(1, s(0), 0)
    sender.take_sends(s(0))
    sender.receive_ack(ack(EPOCH, 1), Placed(Match.HELD, 1), s(1))
    assert not is_due(policy, sender, s(3599))
    assert is_due(policy, sender, s(3600))


def test_no_state_report_unsettled_unacked_or_above_95_percent() -> None:
    policy, sender = ReportPolicy(3600), sending(2)
    policy.connect()
    assert not is_due(policy, sender, s(0), settled=False)
    assert not is_due(policy, sender, s(0), pct=96)
    assert is_due(policy, sender, s(0), pct=95)
    policy.reported(2, s(0), 0)
    policy.connect()
    assert not is_due(policy, sender, s(1)), "the last one is not acked yet"


def test_what_a_report_had_not_seen_is_reported_when_it_is_and_what_never_comes_is_not_waited_for() -> None:
    policy, sender = ReportPolicy(3600), sending(2)
    policy.connect()
    assert is_due(policy, sender, s(0), unseen=3)
    policy.reported(1, s(0), 3)
    sender.take_sends(s(0))
    sender.receive_ack(ack(EPOCH, 1), Placed(Match.HELD, 1), s(1))
    assert not is_due(policy, sender, s(60), unseen=3)
    assert not is_due(policy, sender, s(9), unseen=1), "others may follow"
    assert is_due(policy, sender, s(10), unseen=1)
    policy.reported(1, s(10), 1)
    assert not is_due(policy, sender, s(3000), unseen=1)


def test_spans_join_neighbours() -> None:
    assert spans([1, 2, 3, 7, 9, 10]) == [Span(1, 3), Span(7, 7), Span(9, 10)]
    assert spans([]) == []
