"""One alarm's states after ISA-18.2, over every state and input."""

import itertools

import pytest

from edge_agent.wire.event import Priority
from gateway.domain.alarm import Ack, AlarmState, Aside, Condition, Input, Letter, is_latching

CORE = {
    # condition, acknowledgement, latching: letter, and the letters after raise, realarm, clear, acknowledge
    (Condition.ACTIVE, Ack.UNACKED, False): ("B", "BBDC"),
    (Condition.ACTIVE, Ack.ACKED, False): ("C", "CBAC"),
    (Condition.NORMAL, Ack.UNACKED, False): ("D", "BDDA"),  # acknowledging what is over opens nothing again
    (Condition.NORMAL, Ack.ACKED, False): ("A", "BAAA"),
    (Condition.ACTIVE, Ack.UNACKED, True): ("B", "BBEC"),
    (Condition.ACTIVE, Ack.ACKED, True): ("C", "CBFC"),
    (Condition.NORMAL, Ack.UNACKED, True): ("E", "BEEF"),
    (Condition.NORMAL, Ack.ACKED, True): ("F", "BFFF"),  # only a reset takes it off the list
}


def test_the_table_covers_every_combination_of_the_parts() -> None:
    assert set(CORE) == set(itertools.product(Condition, Ack, (False, True)))


@pytest.mark.parametrize(("parts", "expected"), CORE.items())
def test_every_state_has_its_letter_and_every_input_its_outcome(
    parts: tuple[Condition, Ack, bool], expected: tuple[str, str]
) -> None:
    state = AlarmState(*parts)
    assert state.letter == expected[0]
    assert "".join(state.after(happened).letter for happened in Input) == expected[1]


@pytest.mark.parametrize("parts", CORE)
def test_what_happens_to_an_alarm_laid_aside_is_not_forgotten_when_it_comes_back(
    parts: tuple[Condition, Ack, bool],
) -> None:
    for happened in Input:
        aside = AlarmState(*parts, (Aside.SHELVED,)).after(happened)
        assert aside.letter is Letter.SHELVED
        assert AlarmState(aside.condition, aside.ack, aside.is_latching) == AlarmState(*parts).after(happened)


def test_of_several_reasons_to_lay_an_alarm_aside_the_strongest_is_shown() -> None:
    def letter(*aside: Aside) -> str:
        return AlarmState(Condition.ACTIVE, Ack.UNACKED, is_latching=True, aside=aside).letter

    assert letter(Aside.SHELVED) == "G"
    assert letter(Aside.SHELVED, Aside.SUPPRESSED) == "H"
    assert letter(Aside.SHELVED, Aside.SUPPRESSED, Aside.OUT_OF_SERVICE) == "I"


@pytest.mark.parametrize(
    ("rule", "priority", "latches"),
    [
        ("guard_open_motion", Priority.P1, True),
        ("guard_open_motion", Priority.P2, True),  # raised because motion could not be excluded
        ("channel_discrepancy", Priority.P2, True),
        ("bypass_active", Priority.P2, True),
        ("estop", Priority.P2, False),  # an event: it stays listed until somebody has seen it
        ("monitoring_lost", Priority.P2, False),
        ("opened_while_moving", Priority.P2, True),
        ("opened_while_moving", Priority.P3, False),
        ("dust_extraction_interlock", Priority.P1, True),
        ("dust_extraction_interlock", Priority.P2, False),
        ("evidence_conflict", Priority.P2, True),
        ("stream_gap", Priority.P2, False),
        ("a-rule-of-a-younger-agent", Priority.P1, False),
    ],
)
def test_rules_latch_as_the_rule_table_says(rule: str, priority: Priority, latches: bool) -> None:
    assert is_latching(rule, priority, {}) is latches


def test_an_agents_configuration_decides_over_the_rule_table() -> None:
    assert is_latching("guard_open_motion", Priority.P1, {"params": {"latch": False}}) is False
    assert is_latching("estop", Priority.P2, {"params": {"latch": True}}) is True
    assert is_latching("estop", Priority.P2, {"params": {"latch": "yes"}}) is False
