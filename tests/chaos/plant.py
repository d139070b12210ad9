"""The plant under test: every part a supervised process, on small disks, with the plant floor apart where root allows.

The controllers' stand-in writes down every response that it served; a mailbox in this process keeps what people were
told. The door's own thread and the faults act through `Plant`, each from a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Final, Self, cast

from simulators.servers import find_mosquitto
from tests.chaos.accounting import Finding
from tests.chaos.configs import add_influx, write_broker, write_filled
from tests.chaos.disk import Disk, ImageDisk, SmallDisk
from tests.chaos.hall import Hall, write_config
from tests.chaos.mailbox import Mailbox
from tests.chaos.place import Place, PlantFloor
from tests.chaos.process import Part, Span
from tests.server_process import accepts_connections, free_port, require
from tests.servers import Influx

SITE, AGENT = "changyi", "gw-01"
TOPICS: Final = f"guardwatch/v1/{SITE}/{AGENT}"
MACHINE, GUARD = "mixer-18", "door-1"

AGENT_DISK_MB, GATEWAY_DISK_MB, BROKER_DISK_MB = 48, 96, 16
"""A round stores some megabytes; the rest is what the filler takes in a moment."""

TEND_S: Final = 0.05
MEASURE_EVERY: Final = 20

SCENARIO: Final = """
labels: {zh: 混乱, en: Chaos}
seed: 5
steps:
  - {at_s: 0, do: start, machine: mixer-18}
  - {at_s: 0.1, do: defeat, machine: mixer-18, guard: door-1}
"""
"""The mixer runs and its service door stops nothing: an open door is a violation for as long as it is open."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a plant is built: does the broker keep sessions, is there InfluxDB, can the wall clock be made to step?

    `is_on_images`: the disks of agent and gateway are file systems of their own, which can fail; `version_before`: where
    older code lies.
    """

    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    keeps_sessions: bool = False
    has_influx: bool = False
    is_clock_steered: bool = False
    is_on_images: bool = False
    version_before: Path | None = None


class Plant:
    """All parts. As a context manager it is built and running, and in the end stopped and taken down."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder = folder
        self.options = options
        self.place: Place = PlantFloor() if options.is_root else Place()
        self.agent_disk = _disk(folder / "edge", options, AGENT_DISK_MB)
        self.gateway_disk = _disk(folder / "server", options, GATEWAY_DISK_MB)
        self.broker_disk = _disk(folder / "broker", replace(options, is_on_images=False), BROKER_DISK_MB)
        self.mailbox = Mailbox()
        self.served_log = folder / "served.jsonl"
        self.clock_file = folder / "clock"
        self.mqtt_port, self.http_port = free_port(), free_port()
        self._modbus_port, self._control_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.door = threading.Lock()
        """Whoever needs the door shut for a while holds this."""
        self.started_s = time.monotonic()
        self.ahead_s: list[float] = [0.0]
        """How far the monotonic clocks of the agent's boots were ahead of the real one."""
        self.replaced_stores: list[Path] = []
        """Copies of stores that a fault took away: what they held was committed, too."""
        self.blind: list[Span] = []
        """When a fault may have kept the controllers' answers from the agent."""
        self.dark: list[Span] = []
        """When a fault kept everything from the gateway."""
        self.oom_kills = 0
        """Processes that the kernel killed for want of memory."""
        self.broken: list[Finding] = []
        """What a fault found broken when it struck."""
        self.influx: Influx | None = None
        self.hall: Hall | None = None
        self._hall_agent: list[Part] = []
        self._stack = contextlib.ExitStack()
        self._acting = threading.Lock()
        self._control: tuple[object, object] | None = None
        self._is_over = threading.Event()
        self._tending = threading.Thread(target=self._tend, daemon=True)

    # the parts

    @property
    def store(self) -> Path:
        """The agent's store."""
        return self.agent_disk.folder / "var" / "gw-01.db"

    @property
    def journal(self) -> Path:
        """The gateway's database."""
        return self.gateway_disk.folder / "var" / "gateway.db"

    @property
    def parts(self) -> Mapping[str, Part]:
        """By name."""
        parts = (self.broker, self.sim, self.gateway, self.agent, *self._hall_agent)
        return {part.name: part for part in parts}

    @property
    def stores(self) -> list[Path]:
        """Of every agent."""
        return [self.store, *(self.store.with_name("gw-02.db") for _ in self._hall_agent)]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for resource in (self.place, self.agent_disk, self.gateway_disk, self.broker_disk):
                stack.enter_context(resource)
            stack.callback(self.mailbox.stop)
            if self.options.has_influx:
                self.influx = stack.enter_context(Influx(self.folder / "influx"))
            self._build()
            self.write_out()
            stack.callback(self._take_down)
            for part in (self.broker, self.sim, self.gateway, self.agent):
                part.start()
                part.wait_ready()
            self._tending.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        env = dict(os.environ)
        (self.folder / "scenario.yaml").write_text(SCENARIO)
        agent_config, gateway_config = self._write_configs()
        python = [sys.executable, "-m"]
        ours = python
        if self.options.is_clock_steered:
            self.clock_file.write_text("0")
            ours = [*python, "tests.chaos.steered", str(self.clock_file)]
        self._ours = ours
        binary = require(find_mosquitto(), "mosquitto")
        logs = self.folder
        self.broker = Part(
            "broker",
            [str(binary.path), "-c", str(self.folder / "mosquitto.conf")],
            binary.environment(),
            logs / "broker.log",
            is_ready=lambda: accepts_connections(self.mqtt_port),
        )
        sim = [*python, "simulators", "run", str(self.folder / "scenario.yaml")]
        sim += ["--listen", f"127.0.0.1:{self._modbus_port}", "--control", f"127.0.0.1:{self._control_port}"]
        sim += ["--served-log", str(self.served_log)]
        self.sim = Part("plant", self.place.command(sim), env, logs / "plant.log", is_ready=self._has_control)
        self.gateway = Part(
            "gateway",
            [*ours, "gateway", "run", str(gateway_config)],
            env,
            logs / "gateway.log",
            is_ready=self.is_ready,
        )
        self.agent = self.make_agent("agent", agent_config)

    def _write_configs(self) -> tuple[Path, Path]:
        """Of broker, agent and gateway; the latter two's paths."""
        options, room = self.options, self.place.server_room
        addresses = ["127.0.0.1", room] if self.place.is_apart else ["127.0.0.1"]
        sessions = self.broker_disk.folder if options.keeps_sessions else None
        write_broker(self.folder / "mosquitto.conf", self.mqtt_port, addresses, sessions)
        values = {
            "127.0.0.1:${GUARDWATCH_MQTT_PORT}": f"{room}:{self.mqtt_port}",
            "${GUARDWATCH_SIM_PORT}": str(self._modbus_port),
            "${GUARDWATCH_HTTP_PORT}": str(self.http_port),
            "${GUARDWATCH_WEBHOOK_PORT}": str(self.mailbox.port),
        }
        agent = write_filled(self.agent_disk.folder / "agent.yaml", values)
        gateway = write_filled(self.gateway_disk.folder / "gateway.yaml", values)
        if self.influx is not None:
            add_influx(gateway, self.influx.default_bucket())
        return agent, gateway

    def write_out(self) -> None:
        """What we put on the parts' disks ourselves is to survive a power cut."""
        for disk in (self.agent_disk, self.gateway_disk):
            disk.write_out()

    def make_agent(self, name: str, config: Path) -> Part:
        """An agent of this configuration, not yet started."""
        command = self.place.command([*self._ours, "edge_agent", "run", str(config)])
        return Part(name, command, dict(os.environ), self.folder / f"{name}.log")

    def open_hall(self) -> Hall:
        """The hall of a thousand inputs, with its own agent; built at the first call."""
        if self.hall is None:
            port = free_port()
            self.hall = Hall(self.place, port)
            self.hall.start()
            broker = f"{self.place.server_room}:{self.mqtt_port}"
            config = write_config(self.agent_disk.folder / "hall.yaml", broker=broker, port=port)
            self.write_out()
            self._hall_agent.append(self.make_agent("hall's agent", config))
            self._hall_agent[0].start()
        return self.hall

    def _take_down(self) -> None:
        self._is_over.set()
        if self._tending.is_alive():
            self._tending.join()
        for part in (*self._hall_agent, self.agent, self.gateway, self.sim, self.broker):
            part.stop()
            part.close()

    def _tend(self) -> None:
        count = 0
        while not self._is_over.wait(TEND_S):
            count += 1
            for part in self.parts.values():
                part.tend()
                if count % MEASURE_EVERY == 0:
                    part.measure()

    # acting on the plant

    def act(self, do: str, **fields: object) -> None:
        """Do something to the plant (see `simulators.acts`)."""
        with self._acting:
            connection = self.place.connect(self._control_port)
            with connection, connection.makefile() as answers:
                connection.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
                answer = json.loads(answers.readline())
            assert answer["ok"], f"the plant refused {do}: {answer}"

    def _has_control(self) -> bool:
        try:
            self.place.connect(self._control_port).close()
        except OSError:
            return False
        return True

    def sight_since_s(self) -> float | None:
        """Since when the agent has run with clear sight; None while it does not."""
        since_s = self.agent.running_since_s
        if since_s is None or any(span.until_s == float("inf") for span in self.blind):
            return None
        return max([since_s, *(span.until_s for span in self.blind)])

    # asking the gateway

    def get(self, path: str, *, timeout_s: float = 3.0) -> dict[str, object]:
        """A JSON document of the gateway's REST interface. Raises OSError, ValueError."""
        return cast("dict[str, object]", json.loads(self._read(path, timeout_s)))

    def _read(self, path: str, timeout_s: float) -> bytes:
        """An answer, whole. Raises OSError, also when it breaks off."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=timeout_s) as answer:
                return cast("bytes", answer.read())
        except HTTPException as error:
            raise OSError(f"{path}: {error!r}") from error

    def is_ready(self) -> bool:
        """Whether the gateway says that it can work."""
        try:
            return self.get("/readyz")["status"] != "unavailable"
        except (OSError, ValueError):
            return False

    def polls(self) -> float | None:
        """The agent's polls as the gateway knows them: they rise only while everything in between works."""
        try:
            for line in self._read("/metrics", 3.0).decode().splitlines():
                if line.startswith("guardwatch_agent_polls_total{"):
                    return float(line.rsplit(" ", 1)[1])
        except (OSError, ValueError):
            return None
        return None


def _disk(folder: Path, options: Options, size_mb: int) -> Disk:
    if not options.is_root:
        return Disk(folder)
    return ImageDisk(folder, size_mb) if options.is_on_images else SmallDisk(folder, size_mb)


def wait_until(what: str, is_so: Callable[[], bool], *, timeout_s: float) -> None:
    """Return as soon as it is so. Raises TimeoutError naming `what`."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.1)
