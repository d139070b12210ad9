"""The short form of `python -m tests.chaos`: some dozens of kills, one of each cheap fault, and books that can fail."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import pytest

from tests.chaos.__main__ import lacking
from tests.chaos.accounting import Verdict
from tests.chaos.plant import Options
from tests.chaos.report import Report
from tests.chaos.round import Plan, Result, play
from tests.chaos.sabotage import lose_a_row
from tests.chaos.schedule import BRISK, needs_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SEED: Final = 20261122
LENGTH_S: Final = 32.0
KILLS_MIN: Final = 24
DECKS: Final = (
    (
        "freeze",
        "one-way",
        "spoilt-replies",
        "agent-disk-full",
        "retained-garbage",
        "power-cut",
        "dead-neighbour",
        "poison",
        "no-memory",
        "bad-config",
    ),
    (
        "link-blink",
        "gateway-disk-full",
        "take-over",
        "clock-step",
        "refused-port",
        "wiped-broker",
        "bad-mailbox",
        "siege",
    ),
)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Future[Result]]]:
    """Two rounds of chaos and a quiet one whose journal loses a row, side by side."""
    folder = tmp_path_factory.mktemp("chaos")
    missing = lacking().keys()
    plans = []
    for number, deck in enumerate(DECKS):
        names = tuple(name for name in deck if not needs_of(name) & missing)
        options = Options(is_clock_steered="clock-step" in names, is_on_images="power-cut" in names)
        plans.append(Plan(SEED, number, LENGTH_S, names, folder / f"{number}", options, BRISK))
    quiet = Plan(SEED, 9, 10.0, (), folder / "quiet", Options(), BRISK, has_kills=False)
    with ProcessPoolExecutor(len(plans) + 1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        yield [*(pool.submit(play, plan) for plan in plans), pool.submit(play, quiet, lose_a_row)]


def test_nothing_is_lost_made_up_doubled_or_disordered_by_dozens_of_kills_amid_faults(
    rounds: list[Future[Result]],
) -> None:
    report = Report(SEED, [done.result() for done in rounds[:-1]], {}, 0.0)
    assert report.is_good, "\n".join(report.lines())
    assert report.kills >= KILLS_MIN


def test_a_row_that_vanishes_from_the_journal_is_found_to_be_lost(rounds: list[Future[Result]]) -> None:
    result = rounds[-1].result()
    assert result.failure is None, result.failure
    assert result.books.musts > 0
    assert Verdict.LOST in {finding.verdict for finding in result.books.findings}
    assert not Report(SEED, [result], {}, 0.0).is_good
