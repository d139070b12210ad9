"""Campaigns count what they explored, and a failing seed is shrunk to the troubles that it needs."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.__main__ import main
from tests.simulation.campaign import Tally, run_campaign
from tests.simulation.findings import Check, Finding
from tests.simulation.runs import Run
from tests.simulation.shrink import shrink
from tests.simulation.swarm import calm

SWARM = calm(cut_every_s=10, stall_share=0.01, agent_crash_every_s=20, forget_share=0.02, race_share=0.5)


def lived(seed: int, without: list[str], *, needs: tuple[str, ...]) -> Run:
    """A run that breaks a promise while all of `needs` are on."""
    swarm = SWARM.without(without)
    is_broken = bool(needs) and set(needs) <= set(swarm.troubles())
    findings = (Finding(Check.PER_EDGE_ORDER, 1.0, "3 follows 1"),) if is_broken else ()
    return Run(seed, swarm, "00", findings, 90.0, 0.5, 100, Counter({"cut": 3}))


def test_a_failing_seed_is_shrunk_to_what_it_needs() -> None:
    told: list[str] = []
    needs = ("cut_every_s", "agent_crash_every_s")
    shrunk = shrink(7, told.append, lambda seed, without: lived(seed, without, needs=needs))
    assert shrunk is not None
    assert set(shrunk.needed) == set(needs)
    assert set(shrunk.without) == {"stall_share", "forget_share", "race_share"}
    assert len(told) == 3
    assert [finding.check for finding in shrunk.run.findings] == [Check.PER_EDGE_ORDER]


def test_a_green_seed_is_not_shrunk() -> None:
    assert shrink(7, run=lambda seed, without: lived(seed, without, needs=())) is None


def test_a_tally_says_what_was_explored_what_it_cost_and_which_seeds_failed() -> None:
    tally = Tally()
    tally.add(lived(1, [], needs=()))
    tally.add(lived(2, [], needs=("race_share",)))
    text = str(tally)
    assert "2 seeds, 1 kept every promise" in text
    assert "200 events, 6 faults and acts of 1 kinds" in text
    assert "120 seeds, 12000 events, 360 faults a minute of one core" in text
    assert "broken in 1 seeds: per_edge_order" in text
    assert "failed: 2" in text


def test_a_run_that_breaks_off_is_a_failed_seed_and_the_others_are_lived_through() -> None:
    def live(seed: int) -> Run:
        if seed == 2:
            raise AssertionError("a second request on a link")
        return lived(seed, [], needs=())

    told: list[str] = []
    tally = run_campaign(range(1, 4), 1, lambda run, _tally: told.append(str(run)), live)
    assert (tally.seeds, tally.failed) == (3, [2])
    assert "nobody_dies_by_himself" in told[1]
    assert "AssertionError: a second request on a link" in told[1]


def test_one_seed_is_run_again_without_some_of_its_troubles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--without", "cut_every_s,stall_share"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("seed 3 trace ")
    assert "cut_every_s" not in said


def test_a_trouble_that_there_is_not_is_refused_with_the_names_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--seed", "3", "--without", "weather"])
    assert ended.value.code == 2
    assert "no such trouble: weather; there are people, " in capsys.readouterr().err
