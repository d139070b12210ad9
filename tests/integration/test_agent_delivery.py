"""The agent as a process: what happens at the machine reaches a journal once, in order, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from edge_agent.domain.verification import verify_chain
from edge_agent.wire.event import (
    AgentStarted,
    Event,
    GuardChanged,
    GuardState,
    Observation,
    StateReport,
    ViolationCleared,
    ViolationRaised,
)
from edge_agent.wire.status import Ack
from tests.integration.edge_rig import Edge, edge, wait_for
from tests.servers import Mosquitto
from tests.stored import read_entries

pytestmark = pytest.mark.integration


def holes(journal: list[Event]) -> list[str]:
    """Where the journal is no chain: every event must link to the one before it."""
    broken = [pair for pair in pairwise(journal) if pair[1].prev != pair[0].hash]
    return [f"{before.position} -> {event.position}" for before, event in broken]


def raised(plant: Edge) -> list[ViolationRaised]:
    return [body for body in plant.gateway.bodies(ViolationRaised) if body.rule == "guard_open_motion"]


def cleared(plant: Edge) -> list[ViolationCleared]:
    return [body for body in plant.gateway.bodies(ViolationCleared) if body.rule == "guard_open_motion"]


def observed(plant: Edge, what: str) -> list[Observation]:
    return [body for body in plant.gateway.bodies(Observation) if body.what == what]


def door_state(plant: Edge) -> object:
    status = plant.gateway.state("state/mixer/door-1")
    return status and status["state"]


def has(found: Callable[[Edge], Sequence[object]], plant: Edge, count: int) -> bool:
    return len(found(plant)) >= count


async def test_an_open_door_on_a_running_machine_arrives(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        await wait_for(lambda: plant.gateway.bodies(StateReport), "a state report")
        plant.set_running(True)
        plant.set_door(closed=False)
        await wait_for(lambda: raised(plant), "R01")
        changes = [body.state for body in plant.gateway.bodies(GuardChanged)]
        assert changes == [GuardState.CLOSED, GuardState.OPEN]
        await wait_for(lambda: door_state(plant) == "open", "the guard's retained state")
        model = plant.gateway.state("model/mixer")
        assert model is not None
        assert model["labels"] == {"zh": "混砂机", "en": "Mixer"}
        plant.set_door(closed=True)
        await wait_for(lambda: cleared(plant), "the end of R01")
        (over,) = cleared(plant)
        assert over.occurrence == raised(plant)[0].occurrence
        last = plant.gateway.journal[-1].position
        await wait_for(lambda: (now := plant.gateway.health) and now.acked == last, "the ack in health")
        assert holes(plant.gateway.journal) == []


async def test_a_stop_drains_says_offline_and_is_told_as_clean(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        assert await plant.agent.stop() == 0
        assert (now := plant.gateway.health) is not None
        assert not now.online
        await plant.started()
        assert await plant.agent.stop(signal.SIGINT) == 130
        assert [body.clean_stop for body in plant.gateway.bodies(AgentStarted)] == [True, True]
        assert holes(plant.gateway.journal) == []
        verdict = verify_chain(read_entries(tmp_path / "var/gw-01.db"), None)
        assert (verdict.flaw, verdict.unsealed) == (None, 0)


async def test_a_gateway_that_lost_its_journal_is_refilled(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        await wait_for(lambda: plant.gateway.bodies(StateReport), "a state report")
        before = plant.gateway.journal
        plant.gateway.forget_everything()
        await wait_for(lambda: len(plant.gateway.journal) >= len(before), "the journal again")
        assert plant.gateway.journal[: len(before)] == before
        assert holes(plant.gateway.journal) == []


async def test_a_silent_gateway_gets_everything_once_it_speaks(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        plant.gateway.is_acking = False
        await plant.started()
        plant.set_running(True)
        plant.set_door(closed=False)
        await wait_for(lambda: raised(plant), "R01")
        assert (now := plant.gateway.health) is not None
        assert now.acked is None
        plant.gateway.is_acking = True
        last = plant.gateway.journal[-1].position
        await wait_for(
            lambda: (now := plant.gateway.health) and now.acked and now.acked.seq >= last.seq, "an ack"
        )
        assert len(raised(plant)) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_each_violation_arrives_once_whatever_is_killed(tmp_path: Path, seed: int) -> None:
    """Agent and broker are killed at moments drawn from the seed, several times in each open door."""
    draw = random.Random(seed)
    with Mosquitto(tmp_path / "mosquitto") as broker:
        async with edge(tmp_path, broker) as plant:
            await plant.started()
            plant.set_running(True)
            for episode in range(1, 4):
                loop = asyncio.get_running_loop()
                plant.set_door(closed=False)
                await kill_some(plant, draw)
                await wait_for(partial(has, raised, plant, episode), f"violation {episode}")
                told_s = loop.time()
                await kill_some(plant, draw)
                open_ms = (loop.time() - told_s) * 1000
                plant.set_door(closed=True)
                await kill_some(plant, draw)
                await wait_for(partial(has, cleared, plant, episode), f"end of violation {episode}")
                over = cleared(plant)[-1]
                assert over.duration_max_ms >= open_ms, "the open occurrence and its time survive a kill"
            await plant.agent.stop()
            occurrences = [body.occurrence for body in raised(plant)]
            assert len(occurrences) == len(set(occurrences)) == 3
            assert [body.occurrence for body in cleared(plant)] == occurrences
            assert holes(plant.gateway.journal) == []
            entries = list(read_entries(tmp_path / "var/gw-01.db"))
            assert [event.payload for event in plant.gateway.journal] == [entry.payload for entry in entries]


async def kill_some(plant: Edge, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 2)):
        await asyncio.sleep(draw.uniform(0, 0.8))
        if draw.getrandbits(1):
            plant.agent.kill()
            await asyncio.sleep(draw.uniform(0, 0.3))
            plant.agent.start()
        else:
            await asyncio.to_thread(plant.broker.kill)
            await asyncio.sleep(draw.uniform(0, 0.3))
            await asyncio.to_thread(plant.broker.start)


async def test_an_agent_that_polls_every_ten_seconds_shows_in_every_beat_that_it_lives(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        config = plant.agent.config
        config.write_text(config.read_text().replace("poll_ms: 50", "poll_ms: 10000").replace("200", "10000"))
        await plant.started()

        def has_beaten(times: int) -> bool:
            health = plant.gateway.health
            return health is not None and health.beats >= times

        await wait_for(lambda: has_beaten(2), "beats")
        await wait_for(lambda: has_beaten(4), "beats that rise")
        health = plant.gateway.health
        assert health is not None
        assert health.polls < health.beats


async def test_a_refused_configuration_leaves_the_running_one_and_says_so(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        good = plant.agent.config.read_text()
        plant.agent.config.write_text(good + "colour: red\n")
        plant.agent.send(signal.SIGHUP)
        await wait_for(lambda: observed(plant, "config_refused"), "config_refused")
        (refused,) = observed(plant, "config_refused")
        assert "colour" in str(refused.detail["problems"])
        assert len(plant.gateway.bodies(AgentStarted)) == 1


async def test_a_reload_asked_for_while_a_bad_configuration_is_looked_at_looks_again(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        config, good = plant.agent.config, plant.agent.config.read_text()
        config.unlink()
        os.mkfifo(config)
        plant.agent.send(signal.SIGHUP)
        with await asyncio.to_thread(config.open, "w") as looked_at:
            config.unlink()
            config.write_text(good.replace("door-1:", "door-2:"))
            plant.agent.send(signal.SIGHUP)
            looked_at.write(good + "colour: red\n")
        await wait_for(lambda: len(plant.gateway.bodies(AgentStarted)) == 2, "a run of what is good now")


async def test_a_configuration_that_the_store_would_refuse_is_refused_at_the_reload(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        config, good = plant.agent.config, plant.agent.config.read_text()
        (tmp_path / "file").touch()
        config.write_text(good.replace("agent: gw-01", "agent: gw-02"))
        plant.agent.send(signal.SIGHUP)
        await wait_for(lambda: observed(plant, "config_refused"), "config_refused")
        config.write_text(good.replace("var/gw-01.db", "file/gw-01.db"))
        plant.agent.send(signal.SIGHUP)
        await wait_for(lambda: len(observed(plant, "config_refused")) == 2, "config_refused again")
        others, nowhere = (str(refused.detail["problems"]) for refused in observed(plant, "config_refused"))
        assert "belongs to plant/gw-01" in others
        assert "cannot be written" in nowhere
        assert plant.agent.is_running


async def test_an_accepted_configuration_is_executed_anew_and_clears_what_is_gone(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        await wait_for(lambda: plant.gateway.state("state/mixer/door-1"), "the guard's state")
        pid = plant.agent.pid
        text = plant.agent.config.read_text()
        plant.agent.config.write_text(text.replace("door-1:", "door-2:"))
        plant.agent.send(signal.SIGHUP)
        await wait_for(lambda: len(plant.gateway.bodies(AgentStarted)) == 2, "a new run")
        started = plant.gateway.bodies(AgentStarted)
        assert started[0].config_hash != started[1].config_hash
        assert started[1].clean_stop
        assert plant.agent.is_running
        assert plant.agent.pid == pid
        await wait_for(lambda: plant.gateway.state("state/mixer/door-2"), "the new guard's state")
        await wait_for(
            lambda: plant.gateway.state("state/mixer/door-1") is None, "the old guard's state to go"
        )


async def test_another_history_of_its_epoch_makes_a_new_one_and_says_so(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """What a resumed snapshot of a running machine meets: the gateway knows more of its epoch than itself."""
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        await wait_for(lambda: plant.gateway.bodies(StateReport), "a state report")
        before = plant.gateway.journal[-1]
        plant.gateway.claim(Ack(before.epoch, before.epoch, 9999, "f" * 64, reset=False))
        await wait_for(lambda: observed(plant, "epoch_fork"), "epoch_fork")
        started = plant.gateway.bodies(AgentStarted)[-1]
        assert started.after is not None
        assert started.after.epoch == before.epoch
        fresh = plant.gateway.journal[-1].epoch
        assert fresh != before.epoch
        await wait_for(
            lambda: (now := plant.gateway.health) and now.epoch == fresh, "health of the new epoch"
        )
        plant.agent.kill()
        await wait_for(lambda: (now := plant.gateway.health) and not now.online, "the last will")
        assert (now := plant.gateway.health) is not None
        assert now.epoch == fresh, "the will speaks for the new epoch"
        assert holes(plant.gateway.journal) == []


async def test_broker_mode_settles_for_pubacks(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with edge(tmp_path, mosquitto, delivery="broker") as plant:
        plant.gateway.is_acking = False
        await plant.started()
        await wait_for(lambda: (now := plant.gateway.health) and now.acked, "acked by PUBACK")
