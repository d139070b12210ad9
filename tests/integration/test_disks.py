"""Real processes on real disks that fill up and are torn out: alarmed, never shown as it was, nothing invented after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from edge_agent.wire.codec import decode
from edge_agent.wire.event import Event, OutboxOverflow, ViolationRaised
from tests.integration.edge_rig import edge
from tests.integration.edge_rig import wait_for as wait_until
from tests.servers import Mosquitto
from tests.small_disk import SmallDisk
from tests.stored import read_entries
from tests.whole_plant import WholePlant, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(280)]

TOGGLE_S = 0.25
"""Between an opening and a closing while a disk is being filled."""

ALARM_S = 5.0
"""Matrix row 5: so soon it is alarmed, and nothing is shown as it was."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", size_mb=256) as found:
        yield found


def door_state(plant: WholePlant) -> str:
    for site in cast(
        "list[dict[str, list[dict[str, list[dict[str, object]]]]]]", plant.get("/api/v1/board")["sites"]
    ):
        for area in site["areas"]:
            for machine in area["machines"]:
                for guard in cast("list[dict[str, str]]", machine["guards"]):
                    if (machine["machine"], guard["guard"]) == ("mixer-18", "door-1"):
                        return guard["state"]
    return "no board"


def is_failing(plant: WholePlant) -> bool:
    try:
        plant.get("/readyz")
    except OSError:  # 503
        return True
    return False


def test_a_gateway_without_room_shows_unknown_alarms_and_goes_on_when_there_is_some(
    tmp_path: Path, disk: SmallDisk
) -> None:
    plant = WholePlant(tmp_path / "plant")
    config = tmp_path / "plant" / "gateway.yaml"
    config.write_text(config.read_text().replace("sqlite:///var/", f"sqlite:///{disk.folder}/"))
    with plant:
        wait_for("the door is seen closed", lambda: door_state(plant).startswith("closed"), timeout_s=60)
        disk.fill(leave_bytes=200_000)
        wait_for(
            "little room is alarmed",
            lambda: bool(plant.violations("&rule=journal_filling&state=active")),
            timeout_s=30,
        )
        for _ in range(400):
            if is_failing(plant):
                break
            plant.act("open")
            threading.Event().wait(TOGGLE_S)
            plant.act("close")
            threading.Event().wait(TOGGLE_S)
        assert is_failing(plant), "the disk is full"
        wait_for("nothing is shown as it was", lambda: door_state(plant) == "unknown", timeout_s=ALARM_S)
        plant.act("open")
        threading.Event().wait(3.0)
        assert not door_state(plant).startswith("closed"), (
            "whether or not its opening found the last free page"
        )
        disk.relieve()
        wait_for("it goes on by itself", lambda: door_state(plant) in {"open", "fault"}, timeout_s=60)
        plant.act("close")
        wait_for("and shows what is", lambda: door_state(plant).startswith("closed"), timeout_s=60)
        wait_for(
            "the alarm is over",
            lambda: not plant.violations("&rule=journal_filling&state=active"),
            timeout_s=30,
        )
        wait_for("all is cleared", lambda: not plant.violations("&rule=guard_open_motion&state=active"))
        logged = [str(row["occurrence"]) for row in plant.violations("&rule=guard_open_motion")]
    stored = [decode(entry.payload) for entry in read_entries(tmp_path / "plant" / "var" / "gw-01.db")]
    raised = [
        event.body.occurrence
        for event in stored
        if isinstance(event, Event)
        and isinstance(event.body, ViolationRaised)
        and event.body.rule == "guard_open_motion"
    ]
    assert sorted(logged) == sorted(raised), "none lost, none doubled, none invented"


async def test_an_agent_killed_without_room_says_afterwards_what_it_lost(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    with SmallDisk(tmp_path / "var", size_mb=64) as disk:
        async with edge(tmp_path, mosquitto) as rig:
            rig.set_running(True)
            await rig.started()
            await wait_until(lambda: rig.gateway.health is not None, "a heartbeat")
            disk.fill()
            is_closed = True

            def is_told_full() -> bool:
                nonlocal is_closed
                is_closed = not is_closed
                rig.set_door(closed=is_closed)
                health = rig.gateway.health
                return health is not None and health.outbox_pct == 100

            await wait_until(is_told_full, "the full disk in health")
            threading.Event().wait(1.0)
            rig.agent.kill()
            disk.relieve()
            await rig.started()
            await wait_until(lambda: rig.gateway.bodies(OutboxOverflow), "the loss to be told")
            (overflow,) = rig.gateway.bodies(OutboxOverflow)
            assert overflow.dropped > 0
            assert overflow.since <= overflow.until


async def test_an_agent_whose_disk_is_torn_out_ends_within_seconds(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    with SmallDisk(tmp_path / "var", size_mb=16) as disk:
        async with edge(tmp_path, mosquitto) as rig:
            await rig.started()
            disk.tear_out()
            await wait_until(lambda: not rig.agent.is_running, "its end")
            assert rig.agent.exit_code == 1
            assert "gone from its place" in rig.agent.log.read_text()
