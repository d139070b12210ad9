"""Whatever is killed, each violation is in the log exactly once, with its clearing, and the shift manager was told.

Agent, gateway and broker are killed -9 at random (seeded) moments, twenty times in all, while a door opens and closes
on a running machine. An opening lasts T_allow + 3 s, with everything back for the last 2 s of it and for 3 s of the
time between two openings, as the product promises.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.whole_plant import WholePlant, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

KILLS = 20
SEED = 20261122
T_ALLOW_S = 1.0
OPEN_S = T_ALLOW_S + 3.0
APART_S = 5.0
BACK_OPEN_S = 2.0
BACK_CLOSED_S = 3.0
RESTART_S = 0.3
"""Between a kill and the start again: a supervisor's pause."""


def _kill_and_restart(plant: WholePlant, name: str) -> None:
    part = {"agent": plant.agent, "gateway": plant.gateway, "broker": plant.broker}[name]
    part.kill()
    threading.Event().wait(RESTART_S)
    part.start()


def _phase(plant: WholePlant, rng: random.Random, name: str, length_s: float, back_s: float) -> None:
    """One opening or pause: kill `name` at a random moment that leaves `back_s` with everything back."""
    ends = time.monotonic() + length_s
    window_s = max(0.0, length_s - back_s - RESTART_S - 1.0)
    threading.Event().wait(rng.uniform(0, window_s))
    _kill_and_restart(plant, name)
    remaining = max(ends - time.monotonic(), back_s)
    threading.Event().wait(remaining)


def test_twenty_kills_lose_no_violation_double_none_and_leave_nobody_untold(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    openings = 0
    with WholePlant(tmp_path) as plant:
        wait_for("the agent is online", lambda: _is_online(plant))
        wait_for("the mixer is seen running", lambda: _is_moving(plant), timeout_s=40)
        for kill in range(KILLS):
            name = rng.choice(["agent", "gateway", "broker"])
            plant.act("open")
            openings += 1
            if kill % 2:
                threading.Event().wait(OPEN_S)
                plant.act("close")
                _phase(plant, rng, name, APART_S, BACK_CLOSED_S)
            else:
                _phase(plant, rng, name, OPEN_S, BACK_OPEN_S)
                plant.act("close")
                threading.Event().wait(APART_S)
        wait_for("every opening is cleared in the log", lambda: _cleared(plant) == openings, timeout_s=60)
        rows = [row for row in plant.violations() if row["rule"] == "guard_open_motion"]
        occurrences = [str(row["occurrence"]) for row in rows]
        wait_for("everybody was told", _all_told(plant, occurrences), timeout_s=60)

    assert len(rows) == openings
    assert len(set(occurrences)) == openings
    assert all(row["state"] == "cleared" and row["priority"] == "P1" for row in rows)
    for occurrence in occurrences:
        events = plant.mailbox.events(occurrence)
        assert events.count("raised") == 1
        assert events.count("cleared") == 1


def _is_online(plant: WholePlant) -> bool:
    items = plant.get("/api/v1/agents")["items"]
    assert isinstance(items, list)
    return any(item["online"] for item in items)


def _is_moving(plant: WholePlant) -> bool:
    board = plant.get("/api/v1/board")
    sites = board["sites"]
    assert isinstance(sites, list)
    machines = [machine for site in sites for area in site["areas"] for machine in area["machines"]]
    return any(machine["machine"] == "mixer-18" and machine["moving"] is True for machine in machines)


def _cleared(plant: WholePlant) -> int:
    rows = plant.violations("&rule=guard_open_motion")
    return sum(1 for row in rows if row["state"] == "cleared")


def _all_told(plant: WholePlant, occurrences: list[str]) -> Callable[[], bool]:
    return lambda: all({"raised", "cleared"} <= set(plant.mailbox.events(item)) for item in occurrences)
