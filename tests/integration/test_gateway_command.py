"""`guardwatch-gateway` as people run it: real process, real broker, its signals, its verbs, its exit codes."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters.store_sql.engine import open_readers
from gateway.adapters.store_sql.schema import JOURNAL
from tests.servers import Mosquitto, accepts_connections, free_port

pytestmark = pytest.mark.integration

STOP_S = 5.0
"""The promise of one SIGTERM."""
PATIENCE_S = 60.0
"""A cold start beside a full test run; only a failure waits so long."""


class Gateway:
    """One configuration in a folder, and the process that runs it."""

    def __init__(self, folder: Path, broker_port: int) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "gateway.yaml"
        self.text = (
            f"http: {{listen: 127.0.0.1:{self.port}}}\n"
            f"mqtt: {{url: mqtt://127.0.0.1:{broker_port}}}\n"
            "auth: {anonymous: viewer}\n"
        )
        self.config.write_text(self.text)
        self.process: subprocess.Popen[bytes] | None = None

    def verb(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", *words]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    def start(self) -> None:
        command = [sys.executable, "-m", "gateway", "run", str(self.config)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self.wait_ready()

    def wait_ready(self) -> None:
        until(lambda: accepts_connections(self.port) and self.get("/readyz")["status"] != "unavailable")

    def get(self, path: str, token: str | None = None) -> dict[str, object]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                found: dict[str, object] = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        except OSError:
            return {"status": "unavailable"}
        return found

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=PATIENCE_S)

    def entries(self) -> list[tuple[str, bytes]]:
        readers = open_readers(f"sqlite:///{self.folder}/var/gateway.db")
        with readers.connect() as connection:
            found = [(row.kind, row.payload) for row in connection.execute(JOURNAL.select())]
        readers.dispose()
        return found


def until(is_so: object) -> None:
    assert callable(is_so)
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def gateway(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, mosquitto.port)
    yield gateway
    if gateway.process is not None and gateway.process.poll() is None:
        gateway.process.kill()
        gateway.process.wait()


def open_stream(gateway: Gateway) -> object:
    answer = urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/api/v1/live", timeout=30)
    assert answer.readline().startswith(b"retry:")
    return answer


def test_one_sigterm_ends_it_within_five_seconds_however_many_streams_are_open(gateway: Gateway) -> None:
    gateway.start()
    streams = [open_stream(gateway) for _ in range(5)]
    began = time.monotonic()
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    assert time.monotonic() - began < STOP_S
    del streams


def test_ctrl_c_ends_it_with_130(gateway: Gateway) -> None:
    gateway.start()
    gateway.send(signal.SIGINT)
    assert gateway.wait() == 130


def test_a_good_configuration_is_taken_up_by_the_same_process(gateway: Gateway) -> None:
    gateway.start()
    assert gateway.process is not None
    gateway.config.write_text(gateway.text.replace("auth: {anonymous: viewer}", "language: en"))
    gateway.send(signal.SIGHUP)
    until(lambda: gateway.get("/api/v1/board").get("status") == 401)
    assert gateway.process.poll() is None
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0


def test_a_refused_configuration_leaves_the_running_one_in_force_and_a_journal_entry(
    gateway: Gateway,
) -> None:
    gateway.start()
    gateway.config.write_text(gateway.text + "langauge: en\n")
    gateway.send(signal.SIGHUP)
    until(lambda: [kind for kind, _ in gateway.entries()] == ["config_refused"])
    assert b"langauge" in gateway.entries()[0][1]
    assert "position" in gateway.get("/api/v1/board")
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0


def test_a_second_gateway_on_the_same_journal_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    gateway.start()
    other = gateway.config.with_name("other.yaml")
    other.write_text(gateway.text.replace(str(gateway.port), str(free_port())))
    done = gateway.verb("run", str(other))
    assert done.returncode == 1
    assert "another gateway runs on this journal" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_said_without_a_traceback(gateway: Gateway, mosquitto: Mosquitto) -> None:
    gateway.config.write_text(gateway.text.replace(str(gateway.port), str(mosquitto.port), 1))
    done = gateway.verb("run", str(gateway.config))
    assert done.returncode == 1
    assert "choose another `listen`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_configuration_is_refused_by_every_verb_with_place_and_mend(gateway: Gateway) -> None:
    gateway.config.write_text("mqtt: {url: http://x}\nnonsense: 1\n")
    for verb in (
        ("run",),
        ("check",),
        ("doctor",),
        ("status",),
        ("alarms",),
        ("user", "list"),
        ("token", "list"),
    ):
        done = gateway.verb(*verb, str(gateway.config))
        assert done.returncode == 2, verb
        assert f"{gateway.config}:2:1:" in done.stderr, verb
        assert done.stdout == ""


def test_a_token_is_made_beside_the_running_gateway_and_works_until_it_is_revoked(gateway: Gateway) -> None:
    gateway.start()
    config = str(gateway.config)
    done = gateway.verb("token", "create", config, "--role", "maintenance", "--name", "wall-1")
    token = done.stdout.strip()
    assert (done.returncode, done.stdout) == (0, f"{token}\n")
    assert gateway.get("/api/v1/session", token)["role"] == "maintenance"
    assert gateway.verb("token", "create", config, "--role", "viewer", "--name", "wall-1").returncode == 2
    listed = json.loads(gateway.verb("token", "list", config, "--json").stdout)
    assert [item["name"] for item in listed["items"]] == ["wall-1"]
    assert gateway.verb("token", "revoke", config, "--name", "wall-1").returncode == 0
    assert gateway.get("/api/v1/session", token)["status"] == 401


def test_users_are_added_listed_and_disabled(gateway: Gateway) -> None:
    config = str(gateway.config)
    add = ("user", "add", config, "li-qiang", "--role", "shift_manager", "--password-file", "-")
    assert gateway.verb(*add, stdin="correct horse battery\n").returncode == 0
    assert "12 to 256" in gateway.verb(*add, stdin="short\n").stderr
    assert gateway.verb("user", "disable", config, "li-qiang").returncode == 0
    listed = json.loads(gateway.verb("user", "list", config, "--json").stdout)
    assert listed["items"][0]["disabled"] is True
    assert (gateway.folder / "var" / "accounts.db").stat().st_mode & 0o077 == 0


def test_status_and_alarms_read_beside_the_running_gateway(gateway: Gateway) -> None:
    config = str(gateway.config)
    assert gateway.verb("status", config).returncode == 1  # no journal yet
    gateway.start()
    found = json.loads(gateway.verb("status", config, "--json").stdout)
    assert found["counts"]["guards"] == 0
    assert gateway.verb("status", config, "--exit-code").returncode == 0
    assert json.loads(gateway.verb("alarms", config, "--json").stdout) == {"items": [], "next": None}
    doctor = json.loads(gateway.verb("doctor", config, "--json").stdout)
    assert all(item["ok"] or item["mend"] for item in doctor["items"])


def test_route_names_who_would_be_told_when(gateway: Gateway) -> None:
    gateway.config.write_text(
        gateway.text
        + "people:\n  li: {name: {zh: 李, en: Li}}\n  wang: {name: {zh: 王, en: Wang}}\n"
        + "channels: {hook: {kind: webhook, url: 'http://127.0.0.1:9/x'}}\n"
        + "routes:\n  - {match: {priority: [P1, P2]}, to: [li], via: [hook]}\n"
        + "  - {match: {rule: estop}, to: [wang], via: [hook], repeat_s: 60}\n"
    )
    words = ("route", str(gateway.config), "--rule", "estop", "--at", "2026-11-28T03:00", "--json")
    found = json.loads(gateway.verb(*words).stdout)
    assert [(item["person"], item["repeat_s"]) for item in found["items"]] == [("li", 300), ("wang", 60)]
    assert gateway.verb(*words[:-2], "teatime").returncode == 2
    test = gateway.verb("alert-test", str(gateway.config), "--channel", "hook", "--to", "li")
    assert test.returncode == 1
    assert "not delivered to li by hook" in test.stderr


@pytest.mark.parametrize("words", [(), ("user",), ("token",)])
def test_every_verb_has_help_with_an_example(gateway: Gateway, words: tuple[str, ...]) -> None:
    listed = gateway.verb(*words, "--help").stdout
    verbs = [line.split()[1] for line in listed.splitlines() if line.startswith("│ ") and line[2].isalpha()]
    assert verbs
    for verb in verbs:
        done = gateway.verb(*words, verb, "--help")
        assert done.returncode == 0, verb
        assert "Example" in done.stdout or "Commands" in done.stdout, verb


def test_help_needs_no_terminal_and_usage_errors_exit_2(gateway: Gateway) -> None:
    assert gateway.verb("frobnicate").returncode == 2
    assert gateway.verb("token", "create", str(gateway.config)).returncode == 2
