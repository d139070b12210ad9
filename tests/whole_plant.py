"""The whole path as processes of their own: stand-in plant, broker, agent, gateway, and a mailbox that counts.

For the tests and benchmarks that judge the product as a plant would see it: a door is opened through the stand-in
plant's control port, and what arrives is read from the gateway's REST, from InfluxDB and from the webhook sink. Any
part can be killed and started again on the same ports and data.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tests.server_process import Server, ServerError, accepts_connections, free_port
from tests.servers import InfluxBucket, Mosquitto

_BIN = Path(sys.executable).parent
_ROOT = Path(__file__).resolve().parent.parent

QUIET_SCENARIO = """
labels: {zh: 受控, en: Controlled}
seed: 5
steps:
  - {at_s: 0, do: start, machine: mixer-18}
  - {at_s: 0.1, do: defeat, machine: mixer-18, guard: door-1}
"""
"""The mixer runs and its service door stops nothing: whatever else happens is the test's doing."""


@dataclass(frozen=True, slots=True)
class Told:
    """One message that the mailbox received, and when (CLOCK_MONOTONIC seconds)."""

    at_s: float
    body: Mapping[str, object]


class Mailbox:
    """A webhook receiver in this process; every message is kept with its time."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        told = self.told

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at_s = time.monotonic()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.append(Told(at_s, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop receiving."""
        self._server.shutdown()
        self._server.server_close()

    def events(self, occurrence: str) -> list[str]:
        """The events told of one occurrence, in order of arrival, each idempotency key once."""
        keys: dict[str, str] = {}
        for item in list(self.told):
            if item.body["occurrence"] == occurrence:
                keys.setdefault(str(item.body["delivery"]), str(item.body["event"]))
        return list(keys.values())


class Program(Server):
    """One of our own programs as a restartable process."""

    def __init__(
        self, name: str, folder: Path, port: int | None, arguments: list[str], env: dict[str, str]
    ) -> None:
        super().__init__(name, folder, port)
        self._command: list[str | Path] = [_BIN / name, *arguments]
        self._env = {**os.environ, **env}

    def start(self) -> None:
        """Start it; returns when its port answers (a program without one: at once)."""
        self._process.start(self._command, env=self._env, is_ready=self._is_ready)

    def _is_ready(self) -> bool:
        return accepts_connections(self.port)


class Gateway(Program):
    """The gateway is ready when it answers."""

    def _is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=1).close()
        except OSError:
            return False
        return True


class Agent(Program):
    """The agent has no port: it is ready when its process runs."""

    def _is_ready(self) -> bool:
        return True


class WholePlant:
    """Everything from contact to mailbox. Parts: `broker`, `plant`, `gateway`, `agent`; InfluxDB when given a bucket."""

    def __init__(self, folder: Path, bucket: InfluxBucket | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.mailbox = Mailbox()
        self.broker = Mosquitto(folder / "broker")
        http, modbus, self._control_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{http}"
        env = {
            "GUARDWATCH_SIM_PORT": str(modbus),
            "GUARDWATCH_MQTT_PORT": str(self.broker.port),
            "GUARDWATCH_HTTP_PORT": str(http),
            "GUARDWATCH_WEBHOOK_PORT": str(self.mailbox.port),
        }
        scenario = folder / "controlled.yaml"
        scenario.write_text(QUIET_SCENARIO)
        for name in ("agent.yaml", "gateway.yaml"):
            (folder / name).write_text((_ROOT / "config" / "demo" / name).read_text())
        if bucket is not None:
            (folder / "influx-token").write_text(bucket.token)
            with (folder / "gateway.yaml").open("a") as config:
                config.write(
                    f"\ninfluxdb: {{url: '{bucket.url}', org: {bucket.org}, bucket: {bucket.bucket}, "
                    "token_file: influx-token, timeout_ms: 5000}\n"
                )
        control = f"127.0.0.1:{self._control_port}"
        plant = ["run", str(scenario), "--listen", f"127.0.0.1:{modbus}", "--control", control]
        self.plant = Program("guardwatch-sim", folder / "plant", modbus, plant, env)
        gateway = ["run", str(folder / "gateway.yaml")]
        self.gateway = Gateway("guardwatch-gateway", folder / "gateway", http, gateway, env)
        self.agent = Agent(
            "guardwatch-agent", folder / "agent", None, ["run", str(folder / "agent.yaml")], env
        )
        self._control: socket.socket | None = None

    def __enter__(self) -> Self:
        for part in (self.broker, self.plant, self.gateway, self.agent):
            part.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._control is not None:
            self._control.close()
        for part in (self.agent, self.gateway, self.plant, self.broker):
            part.stop()
        self.mailbox.stop()

    def act(self, do: str, machine: str = "mixer-18", guard: str = "door-1", **fields: object) -> float:
        """Do something to the plant; the time of the physical change in CLOCK_MONOTONIC seconds."""
        answer = self._request(
            {"do": do, "machine": machine, **({"guard": guard} if guard else {}), **fields}
        )
        mono_ms = answer["mono_ms"]
        assert isinstance(mono_ms, float)
        return mono_ms / 1000

    def contact_openings(self, machine: str = "mixer-18", guard: str = "door-1") -> list[float]:
        """When the guard's contacts said "not closed", bounces included; CLOCK_MONOTONIC seconds."""
        question = {"ask": "spans", "name": "indicated_closed", "value": False}
        spans = self._request({**question, "machine": machine, "guard": guard})["spans"]
        assert isinstance(spans, list)
        return [span[0] / 1000 for span in spans]

    def _request(self, request: Mapping[str, object]) -> dict[str, object]:
        if self._control is None:
            self._control = socket.create_connection(("127.0.0.1", self._control_port), timeout=10)
            self._answers = self._control.makefile()
        self._control.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, object] = json.loads(self._answers.readline())
        if not answer["ok"]:
            raise ServerError(f"the plant refused {request}: {answer}")
        return answer

    def get(self, path: str) -> dict[str, object]:
        """A JSON document of the gateway's REST interface."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            document: dict[str, object] = json.load(answer)
        return document

    def violations(self, query: str = "") -> list[dict[str, object]]:
        """The whole violation log, newest first, page by page."""
        found: list[dict[str, object]] = []
        cursor = ""
        while True:
            page = self.get(f"/api/v1/violations?limit=1000{query}{cursor}")
            items = page["items"]
            assert isinstance(items, list)
            found += items
            if page["next"] is None:
                return found
            cursor = f"&cursor={page['next']}"

    def events(self) -> Iterator[tuple[str, dict[str, object]]]:
        """The live stream, as (event, data), until the connection ends."""
        with urllib.request.urlopen(f"{self.url}/api/v1/live", timeout=30) as answer:
            name = "message"
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    yield name, json.loads(line[5:])


def wait_for(what: str, is_so: Callable[[], bool], *, timeout_s: float = 30.0, every_s: float = 0.05) -> None:
    """Return as soon as `is_so()` holds; fail, naming `what`, when it does not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(every_s)
