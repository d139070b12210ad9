"""The short form of `python -m tests.faults`: every fault against the agent's links, and no wrong value believed."""

from __future__ import annotations

import pytest

from edge_agent.adapters.fieldbus_connection import Timing
from edge_agent.adapters.fieldbus_framing import MbapFraming, RtuFraming
from edge_agent.adapters.fieldbus_request import Request
from edge_agent.adapters.fieldbus_stream import StreamLink
from edge_agent.ports import Fieldbus
from simulators.faults import kinds_of
from tests.faults.campaign import run_campaign
from tests.faults.line import OLD_VALUES, FaultyLine, Kind

REPLIES = 4_000


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", Kind)
def test_under_every_fault_no_value_is_wrong_and_none_outlives_its_time(kind: Kind, seed: int) -> None:
    tally = run_campaign(kind, REPLIES, seed)
    assert tally.wrong == []
    assert set(tally.struck) == kinds_of(kind.framing) - OLD_VALUES
    assert tally.accepted > REPLIES / 2, "and what is right is believed"
    assert tally.went_unknown > 100
    assert (tally.shown_too_long, tally.unknown_late_ms) == (0, 0)


class _OneTransaction(MbapFraming):
    """Every request has the same transaction id, so a late answer fits the next request."""

    def begin(self, request: Request) -> bytes:
        self._transaction = 0
        return super().begin(request)


def _believing(line: FaultyLine, kind: Kind) -> Fieldbus:
    """The same link without what makes it honest: transaction ids, or staying silent and reading twice."""
    if kind is Kind.MBAP:
        return StreamLink(line, _OneTransaction())
    return StreamLink(line, RtuFraming(), Timing(silence_s=0.002, silent_max=3))


@pytest.mark.parametrize("kind", Kind)
def test_without_its_discipline_a_link_believes_wrong_values_and_they_are_found(kind: Kind) -> None:
    assert run_campaign(kind, REPLIES, 1, _believing).wrong_count > 3


@pytest.mark.parametrize("kind", Kind)
def test_a_perfect_wire_refuses_nothing_but_dead_units(kind: Kind) -> None:
    tally = run_campaign(kind, 1_000, 1, share=0.0)
    assert tally.wrong == []
    assert set(tally.refused) <= {"timeout", "unconfirmed", "link"}


@pytest.mark.parametrize("kind", Kind)
def test_one_seed_gives_one_tally(kind: Kind) -> None:
    one, again = (run_campaign(kind, 500, 7) for _ in range(2))
    assert one == again
