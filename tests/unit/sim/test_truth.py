"""The log of truths: spans of facts, and where two facts hold at once."""

from simulators.truth import Fact, Span, TruthLog, overlaps

CLOSED = Fact("m", "g", "closed")
MOVING = Fact("m", "", "moving")


def test_a_fact_noted_twice_with_one_value_is_one_span() -> None:
    log = TruthLog()
    log.note(CLOSED, 0, value=True)
    log.note(CLOSED, 5, value=True)
    log.note(CLOSED, 9, value=False)
    assert list(log.spans()) == [Span(CLOSED, True, 0, 9), Span(CLOSED, False, 9, None)]


def test_a_value_that_lasted_no_time_leaves_no_span() -> None:
    log = TruthLog()
    log.note(CLOSED, 0, value=True)
    log.note(CLOSED, 4, value=False)
    log.note(CLOSED, 4, value=True)
    assert log.of(CLOSED, value=False) == []


def test_open_while_moving_is_exactly_where_both_hold() -> None:
    log = TruthLog()
    log.note(CLOSED, 0, value=True)
    log.note(MOVING, 0, value=False)
    log.note(MOVING, 100, value=True)
    log.note(CLOSED, 150, value=False)
    log.note(MOVING, 400, value=False)
    log.note(MOVING, 500, value=True)
    log.note(CLOSED, 600, value=True)
    log.note(CLOSED, 700, value=False)
    assert log.open_while_moving("m", "g") == [(150, 400), (500, 600), (700, None)]


def test_spans_that_only_touch_do_not_overlap() -> None:
    assert overlaps([Span(CLOSED, False, 0, 10)], [Span(MOVING, True, 10, 20)]) == []


def test_a_span_has_its_length_up_to_now() -> None:
    assert Span(CLOSED, True, 10, 40).length_ms(1_000) == 30
    assert Span(CLOSED, True, 10, None).length_ms(1_000) == 990
