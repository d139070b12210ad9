"""`guardwatch-demo`: a whole plant on one machine, every part a process of its own, over real sockets.

Theory of operation. In a folder of its own (temporary, or `--folder`) the demo writes the configurations of
`config/demo` with free ports filled in through the environment, then starts, in this order: mosquitto, InfluxDB 2
(when one is found; the demo says which), the gateway, the stand-in plant with the `demo` scenario, the agent. What
the shift manager would get is received by a mailbox of its own (`simulators.mailbox`) as lines of `messages.jsonl`.
When the board answers and the agent is seen online, the address is printed; that line is the last.

Each child leads a session of its own, so Ctrl-C reaches only the demo, which then sends each child one SIGTERM, in
reverse order, and waits; the kernel ends the children of a demo that was killed (PR_SET_PDEATHSIG). A child that ends
by itself ends the demo with exit code 1 and the tail of its log.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from simulators.servers import ServerBinary, find_influxd, find_mosquitto

READY_TIMEOUT_S = 60.0
"""A cold start of everything takes 5–15 s on two cores; beyond this something is broken."""

STOP_TIMEOUT_S = 6.0
"""Agent and gateway promise to stop within 5 s of one SIGTERM; beyond this a child is killed."""

POLL_S = 0.2
"""How often readiness is asked for."""

_PR_SET_PDEATHSIG = 1
_INFLUX_ORG = "guardwatch"
_INFLUX_BUCKET = "guardwatch"
_LOG_TAIL_LINES = 15


class DemoError(Exception):
    """Something the user can mend; the text says what and how."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process of the demo and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Children:
    """The demo's processes: started in order, stopped in reverse, never left behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start one child; its output goes to `NAME.log`."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        self._children.append(Child(name, process, log))
        say(f"  {name}: {' '.join(command[:3])} … (pid {process.pid})")

    def demand_alive(self) -> None:
        """Raise `DemoError` with its log's tail when a child has ended."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                tail = "\n".join(child.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
                raise DemoError(f"{child.name} ended with code {code}; its log ends with:\n{tail}")

    def wait_for_end(self, stop: threading.Event) -> None:
        """Return when `stop` is set; raise `DemoError` when a child ends first."""
        while not stop.wait(POLL_S):
            self.demand_alive()

    def stop(self) -> None:
        """One SIGTERM each, in reverse order of start; kill what does not heed it."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
                try:
                    child.process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    say(f"  {child.name} did not stop within {STOP_TIMEOUT_S:.0f} s and is killed")
                    child.process.kill()
                    child.process.wait()


def say(text: str) -> None:
    """One line for the reader, at once."""
    print(text, flush=True)


def main() -> None:
    """Entry point of `guardwatch-demo`."""
    arguments = _parser().parse_args()
    stop = threading.Event()
    asked_by: list[int] = []

    def request_stop(number: int, _frame: FrameType | None) -> None:
        asked_by.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    try:
        with _folder(arguments.folder) as folder:
            run(folder, arguments.port, stop)
    except DemoError as error:
        print(f"guardwatch-demo: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(130 if signal.SIGINT in asked_by else 0)


def run(folder: Path, port: int | None, stop: threading.Event) -> None:
    """The whole demo in `folder`, until `stop` is set. Raises `DemoError`."""
    ports = _Ports.choose(port)
    children = Children(folder)
    try:
        environment = _configure(folder, ports)
        say("Guardwatch demo: a stand-in plant. A monitor only, never a safety function.")
        _start_broker(children, folder, ports.mqtt)
        _start_influxdb(children, folder, ports.influxdb, environment)
        messages = folder / "messages.jsonl"
        mailbox = [sys.executable, "-m", "simulators.mailbox", str(ports.webhook), str(messages)]
        children.start("mailbox", mailbox, environment)
        gateway = _program("guardwatch-gateway")
        config = str(folder / "gateway.yaml")
        children.start("gateway", [gateway, "run", config], environment)
        plant = [_program("guardwatch-sim"), "run", "demo", "--listen", f"127.0.0.1:{ports.modbus}"]
        children.start("plant", plant, environment)
        _wait("the plant's Modbus port", lambda: _listens(ports.modbus), children, stop)
        agent = [_program("guardwatch-agent"), "run", str(folder / "agent.yaml")]
        children.start("agent", agent, environment)
        board = f"http://127.0.0.1:{ports.http}"
        _wait("the gateway and its agent", lambda: _agent_is_online(board), children, stop)
        if stop.is_set():
            return
        link = _sign_in_link(gateway, config, board, environment)
        say("The shift manager's messages: " + str(messages))
        say("Within a minute a violation arises and clears. Ctrl-C ends everything.")
        say(f"Sign in as shift manager (works once): {link}")
        say(f"Board: {board}/")
        children.wait_for_end(stop)
    finally:
        children.stop()


@dataclass(frozen=True, slots=True)
class _Ports:
    mqtt: int
    http: int
    modbus: int
    influxdb: int
    webhook: int

    @staticmethod
    def choose(http: int | None) -> _Ports:
        """Free ports, held open together while choosing, so that no two are the same."""
        with contextlib.ExitStack() as stack:
            numbers = []
            for _ in range(5):
                held = stack.enter_context(socket.socket())
                held.bind(("127.0.0.1", 0))
                numbers.append(held.getsockname()[1])
        return _Ports(numbers[0], http or numbers[1], numbers[2], numbers[3], numbers[4])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="guardwatch-demo",
        description="A stand-in plant, broker, agent and gateway as separate processes; prints the board's address last.",
        epilog="example: guardwatch-demo --port 8080",
    )
    parser.add_argument("--port", type=int, help="port of the board (default: a free one)")
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a temporary folder)")
    return parser


@contextlib.contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="guardwatch-demo-") as name:
        yield Path(name)


def _configure(folder: Path, ports: _Ports) -> dict[str, str]:
    """Put the demo's configurations and secrets into `folder`; the environment that fills in the ports."""
    for name in ("agent.yaml", "gateway.yaml"):
        shutil.copyfile(_config_folder() / name, folder / name)
    token = folder / "secrets" / "influxdb"
    token.parent.mkdir(exist_ok=True)
    token.write_text(secrets.token_hex(16))
    token.chmod(0o600)
    return {
        **os.environ,
        "GUARDWATCH_SIM_PORT": str(ports.modbus),
        "GUARDWATCH_MQTT_PORT": str(ports.mqtt),
        "GUARDWATCH_HTTP_PORT": str(ports.http),
        "GUARDWATCH_WEBHOOK_PORT": str(ports.webhook),
    }


def _config_folder() -> Path:
    """`config/demo` of a checkout, or its copy beside this module in an installed wheel."""
    checkout = Path(__file__).resolve().parent.parent / "config" / "demo"
    return checkout if checkout.is_dir() else Path(__file__).resolve().parent / "demo_config"


def _start_broker(children: Children, folder: Path, port: int) -> None:
    binary = find_mosquitto()
    if binary is None:
        raise DemoError("mosquitto was not found — run `make servers`, or install Debian's mosquitto")
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 1000\n"
        "max_queued_messages 0\nmax_packet_size 65536\nset_tcp_nodelay true\n"
    )
    children.start("mosquitto", [str(binary.path), "-c", str(config)], binary.environment())
    _wait("the broker", lambda: _listens(port), children, threading.Event())


def _start_influxdb(children: Children, folder: Path, port: int, environment: dict[str, str]) -> None:
    """Start and set up InfluxDB 2 when found, and add its section to the gateway's configuration."""
    binary = find_influxd()
    if binary is None:
        say("  influxdb: none found, the violation log is not copied to InfluxDB (`make servers` gets one)")
        return
    say(f"  influxdb: {binary.path}")
    children.start("influxdb", _influxdb_command(binary, folder, port), binary.environment())
    url = f"http://127.0.0.1:{port}"
    _wait("InfluxDB", lambda: _answers(f"{url}/ping"), children, threading.Event())
    token = (folder / "secrets" / "influxdb").read_text()
    request = {
        "username": "guardwatch",
        "password": secrets.token_hex(16),
        "org": _INFLUX_ORG,
        "bucket": _INFLUX_BUCKET,
        "token": token,
    }
    _post(f"{url}/api/v2/setup", request)
    environment["GUARDWATCH_INFLUXDB_PORT"] = str(port)
    with (folder / "gateway.yaml").open("a", encoding="utf-8") as config:
        config.write(
            f"\ninfluxdb: {{url: '{url}', org: {_INFLUX_ORG}, bucket: {_INFLUX_BUCKET}, "
            "token_file: secrets/influxdb, timeout_ms: 5000}\n"
        )


def _influxdb_command(binary: ServerBinary, folder: Path, port: int) -> list[str]:
    data = folder / "influxdb"
    return [
        str(binary.path),
        "run",
        *("--bolt-path", str(data / "influxd.bolt"), "--engine-path", str(data / "engine")),
        *("--sqlite-path", str(data / "influxd.sqlite"), "--http-bind-address", f"127.0.0.1:{port}"),
        "--reporting-disabled",
    ]


def _sign_in_link(gateway: str, config: str, board: str, environment: Mapping[str, str]) -> str:
    """A link that signs in as shift manager, once."""
    done = subprocess.run(
        [gateway, "user", "link", config, "--role", "shift_manager", "--name", "demo", "--base-url", board],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"no sign-in link could be made: {done.stderr.strip()}")
    return done.stdout.strip()


def _wait(what: str, is_ready: Callable[[], bool], children: Children, stop: threading.Event) -> None:
    """Wait until `is_ready()` holds. Raises `DemoError` after `READY_TIMEOUT_S` or when a child ends."""
    for _ in range(int(READY_TIMEOUT_S / POLL_S)):
        if stop.is_set() or is_ready():
            return
        children.demand_alive()
        stop.wait(POLL_S)
    raise DemoError(f"{what} was not ready within {READY_TIMEOUT_S:.0f} s")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except (OSError, urllib.error.URLError):
        return False
    return True


def _agent_is_online(board: str) -> bool:
    try:
        with urllib.request.urlopen(f"{board}/api/v1/agents", timeout=2) as answer:
            items = json.load(answer)["items"]
    except (OSError, ValueError, KeyError):
        return False
    return any(item["online"] for item in items)


def _post(url: str, document: Mapping[str, str]) -> None:
    body = json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except (OSError, urllib.error.URLError) as error:
        raise DemoError(f"InfluxDB could not be set up: {error}") from error


def _program(name: str) -> str:
    """A console script of this very installation."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DemoError(f"{name} is not installed — run `make setup`, or install guardwatch[all]")
    return found


def _die_with_parent() -> None:
    """In the child: be told to end when the demo itself was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
