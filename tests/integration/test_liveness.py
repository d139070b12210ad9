"""A hung thread is not alive, a frozen process harms nobody, and a stop is a stop whatever hangs: real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import publish

from edge_agent.wire.event import (
    DeviceLost,
    DeviceRestored,
    GuardChanged,
    GuardState,
    Observation,
    ViolationRaised,
)
from gateway.domain.journal import FindingRaised, GatewayRule
from simulators.servers import find_strace
from tests.integration.edge_rig import TOPICS, Edge, edge, wait_for
from tests.integration.gateway_process import GatewayProcess
from tests.integration.supervisor import FakeSupervisor
from tests.server_process import require
from tests.servers import Mosquitto

pytestmark = pytest.mark.integration

STOP_S = 5.0
"""What a stop may take (the outside contract, section 1) …"""

LATE_S = 2.0
"""… and what a machine with other work may add."""

FROZEN_S = 20.0
"""An agent is unknown after 6 s of silence and lost after 30: in between nothing but "unknown" is right."""

SILENT_S = 6.0
"""Pings come every 2 s: three missed are no accident."""


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSupervisor]:
    with FakeSupervisor(tmp_path / "notify") as listening:
        monkeypatch.setenv("NOTIFY_SOCKET", str(listening.path))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        yield listening


@contextmanager
def hanging_disk(pid: int) -> Iterator[None]:
    """Every fdatasync of the process takes a minute: the thread that commits hangs, all others run on."""
    strace = str(require(find_strace(), "strace").path)
    command = [strace, "-f", "-qq", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=60000000"]
    tracer = subprocess.Popen([*command, "-o", "/dev/null", "-p", str(pid)])
    try:
        time.sleep(
            0.5
        )  # strace says nothing when it has attached; too early only means a commit more before it
        yield
    finally:
        tracer.kill()
        tracer.wait()


def publish_junk(broker: Mosquitto) -> None:
    """Something that the gateway has to write down."""
    publish.single(f"{TOPICS}/events", b"junk", qos=1, port=broker.port)


def problem_of(gateway: GatewayProcess, name: str) -> str | None:
    checks = gateway.get("/readyz")["checks"]
    assert isinstance(checks, dict)
    check = checks[name]
    assert isinstance(check, dict)
    return None if check["ok"] else str(check["detail"])


async def test_the_supervisor_hears_of_the_whole_life_of_an_agent(
    tmp_path: Path, mosquitto: Mosquitto, supervisor: FakeSupervisor
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        await wait_for(lambda: supervisor.count("WATCHDOG=1"), "a ping")
        config, good = plant.agent.config, plant.agent.config.read_text()
        config.write_text(good + "nonsense: 1\n")
        plant.agent.send(signal.SIGHUP)
        await wait_for(lambda: supervisor.count("READY=1") == 2, "READY after a refused reload")
        what = [seen.what for seen in plant.gateway.bodies(Observation)]
        await wait_for(
            lambda: "config_refused" in [seen.what for seen in plant.gateway.bodies(Observation)], str(what)
        )
        config.write_text(good)
        plant.agent.send(signal.SIGHUP)
        await wait_for(lambda: supervisor.count("READY=1") == 3, "READY after a reload")
        assert await plant.agent.stop() == 0
    assert supervisor.story() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    assert supervisor.told[-1].fields == {"STOPPING": "1"}
    began = [notice for notice in supervisor.told if "RELOADING" in notice.fields]
    assert all(0 <= notice.at_s * 1e6 - int(notice.fields["MONOTONIC_USEC"]) < 1e6 for notice in began)


def test_the_supervisor_hears_of_the_whole_life_of_a_gateway(
    tmp_path: Path, mosquitto: Mosquitto, supervisor: FakeSupervisor
) -> None:
    with GatewayProcess(tmp_path / "gw", mosquitto.port) as gateway:
        until(lambda: supervisor.count("WATCHDOG=1"))
        good = gateway.config.read_text()
        gateway.config.write_text(good + "nonsense: 1\n")
        os.kill(gateway.pid, signal.SIGHUP)
        until(lambda: supervisor.count("READY=1") == 2)
        gateway.config.write_text(good)
        os.kill(gateway.pid, signal.SIGHUP)
        until(lambda: supervisor.count("READY=1") == 3 and gateway.is_ready())
    assert supervisor.story() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]


async def test_an_agent_whose_store_hangs_gets_no_ping_and_vouches_for_nothing(
    tmp_path: Path, mosquitto: Mosquitto, supervisor: FakeSupervisor
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        await wait_for(lambda: supervisor.count("WATCHDOG=1"), "a ping")
        with hanging_disk(plant.agent.pid):
            plant.set_door(closed=False)
            await wait_for(lambda: supervisor.silence_s() > SILENT_S, "silence while the store hangs")
            assert plant.agent.is_running
            beats = plant.gateway.health
            await asyncio.sleep(2 * 2.5)
            assert plant.gateway.health is beats, "a beat vouches for what is shown"
        await wait_for(lambda: supervisor.silence_s() < 1, "pings again")
        await wait_for(lambda: plant.gateway.bodies(GuardChanged)[-1].state is GuardState.OPEN, "the change")


async def test_a_gateway_whose_journal_hangs_gets_no_ping_and_says_so(
    tmp_path: Path, mosquitto: Mosquitto, supervisor: FakeSupervisor
) -> None:
    with GatewayProcess(tmp_path / "gw", mosquitto.port) as gateway:
        until(lambda: supervisor.count("WATCHDOG=1"))
        with hanging_disk(gateway.pid):
            publish_junk(mosquitto)
            until(lambda: problem_of(gateway, "loops"))
            assert "writer" in str(problem_of(gateway, "loops"))
            assert gateway.get("/readyz")["status"] == "unavailable"
            until(lambda: supervisor.silence_s() > SILENT_S)
        until(lambda: supervisor.silence_s() < 1 and not problem_of(gateway, "loops"))
        until(lambda: GatewayRule.QUARANTINE in gateway.open_findings())


async def test_an_agent_frozen_for_20_s_shows_unknown_in_time_and_wakes_up_without_a_false_word(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        with GatewayProcess(tmp_path / "gw", mosquitto.port) as gateway:
            plant.agent.start()
            await asyncio.to_thread(until, lambda: door_of(gateway) == "closed")
            plant.agent.send(signal.SIGSTOP)
            frozen = time.monotonic()
            await asyncio.to_thread(until, lambda: door_of(gateway) == "unknown")
            assert time.monotonic() - frozen < FROZEN_S
            await asyncio.sleep(FROZEN_S - (time.monotonic() - frozen))
            plant.agent.send(signal.SIGCONT)
            await asyncio.to_thread(until, lambda: door_of(gateway) == "closed")
            assert await plant.agent.stop() == 0
            raised = {body.rule for body in plant.gateway.bodies(ViolationRaised)}
            found = [body.rule for body in gateway.bodies(FindingRaised)]
            assert raised <= {"monitoring_lost"}, "which is what it was, and nothing else is made of it"
            assert len(plant.gateway.bodies(DeviceLost)) == len(plant.gateway.bodies(DeviceRestored)) == 1
            assert found == []


async def test_a_gateway_frozen_for_20_s_catches_up_and_finds_nobody_lost(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        with GatewayProcess(tmp_path / "gw", mosquitto.port) as gateway:
            plant.agent.start()
            await asyncio.to_thread(until, lambda: door_of(gateway) == "closed")
            os.kill(gateway.pid, signal.SIGSTOP)
            plant.set_door(closed=False)
            await asyncio.sleep(FROZEN_S)
            asked = asyncio.create_task(asyncio.to_thread(door_of, gateway))
            await asyncio.sleep(0.5)  # so that it waits in the gateway's socket, and is answered first of all
            os.kill(gateway.pid, signal.SIGCONT)
            assert await asked in {"open", "unknown"}, "what it said 20 s ago is not how it stands"
            await asyncio.to_thread(until, lambda: door_of(gateway) == "open")
            assert gateway.bodies(FindingRaised) == []


def door_of(gateway: GatewayProcess) -> str | None:
    """The one door's state on the board."""
    for site in gateway.get("/api/v1/board")["sites"]:  # type: ignore[union-attr]  # JSON
        for area in site["areas"]:  # type: ignore[index,call-overload,union-attr]
            for machine in area["machines"]:  # type: ignore[index,call-overload,union-attr]
                return str(machine["guards"][0]["state"])  # type: ignore[index,call-overload]
    return None


@pytest.mark.parametrize("trouble", ["a frozen broker", "a dead broker", "nobody who acknowledges"])
async def test_an_agent_with_a_backlog_stops_within_5_s(
    tmp_path: Path, mosquitto: Mosquitto, trouble: str
) -> None:
    async with edge(tmp_path, mosquitto) as plant:
        await plant.started()
        plant.gateway.is_acking = False
        match trouble:
            case "a frozen broker":
                os.kill(mosquitto.pid, signal.SIGSTOP)
            case "a dead broker":
                mosquitto.kill()
        for closed in (False, True, False):
            plant.set_door(closed=closed)
            await asyncio.sleep(0.4)
        try:
            assert await stop_s(plant) < STOP_S + LATE_S
        finally:
            if trouble == "a frozen broker":
                os.kill(mosquitto.pid, signal.SIGCONT)


async def stop_s(plant: Edge) -> float:
    """How long an agent takes to stop, politely."""
    began = time.monotonic()
    assert await plant.agent.stop() == 0
    return time.monotonic() - began


@contextmanager
def black_hole() -> Iterator[int]:
    """A server that takes every connection and never says a word; its port."""
    held = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def take() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for wire in held:
        wire.close()


HANGING = """\
influxdb: {{url: "http://127.0.0.1:{port}", org: o, bucket: b, token_file: token, timeout_ms: 30000}}
people:
  li: {{name: {{zh: 李, en: Li}}, role: shift_manager, language: en}}
channels:
  hook: {{kind: webhook, url: "http://127.0.0.1:{port}/hook"}}
routes:
  - {{to: [li], via: [hook]}}
"""


@pytest.mark.parametrize("broker", ["running", "frozen", "dead"])
def test_a_gateway_stops_within_5_s_with_streams_open_while_influxdb_and_the_webhook_hang(
    tmp_path: Path, mosquitto: Mosquitto, broker: str
) -> None:
    folder = tmp_path / "gw"
    folder.mkdir()
    (folder / "token").write_text("secret")
    with black_hole() as port:
        gateway = GatewayProcess(folder, mosquitto.port, more=HANGING.format(port=port))
        gateway.start()
        streams = [urllib.request.urlopen(f"{gateway.url_of_rest}/api/v1/live", timeout=30) for _ in range(3)]
        publish_junk(mosquitto)  # a finding: a message for Li, a line for InfluxDB
        until(lambda: GatewayRule.QUARANTINE in gateway.open_findings())
        time.sleep(0.5)
        if broker == "frozen":
            os.kill(mosquitto.pid, signal.SIGSTOP)
        if broker == "dead":
            mosquitto.kill()
        try:
            pid, began = gateway.pid, time.monotonic()
            os.kill(pid, signal.SIGTERM)
            assert gateway.wait() == 0
            assert time.monotonic() - began < STOP_S + LATE_S
        finally:
            if broker == "frozen":
                os.kill(mosquitto.pid, signal.SIGCONT)
            gateway.kill()
        for stream in streams:
            stream.close()


def until(look: object, seconds: float = 60.0) -> None:
    """Look until there is something."""
    assert callable(look)
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
