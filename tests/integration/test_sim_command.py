"""`guardwatch-sim` as a process: what it prints, where it listens, how it ends."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

pytestmark = pytest.mark.integration

SIM = [sys.executable, "-m", "simulators"]


def finished(*args: str) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run([*SIM, *args], capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def living(*args: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end if it still lives."""
    process = subprocess.Popen(
        [*SIM, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "0"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address_in(line: str, name: str) -> tuple[str, int]:
    """The address of a line such as `Modbus: 127.0.0.1:5020`."""
    match = re.fullmatch(rf"{name}: (127\.0\.0\.1):(\d+)\n", line)
    assert match, line
    return match[1], int(match[2])


def read_inputs(address: tuple[str, int]) -> bytes:
    """The reply to a raw request for 8 discrete inputs of unit 1."""
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(bytes.fromhex("0007 0000 0006 01 02 0000 0008"))
        return connection.recv(100)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_run_tells_its_address_serves_and_ends_on_a_signal(number: signal.Signals, code: int) -> None:
    with living("run", "calm-shift", "--listen", "127.0.0.1:0") as process:
        reply = read_inputs(address_in(line_of(process), "Modbus"))
        assert reply == bytes.fromhex("0007 0000 0004 01 02 01 ef")  # all closed, standing: 1110 1111
        process.send_signal(number)
        assert process.wait(timeout=5) == code
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_run_ends_with_clients_connected() -> None:
    with living("run", "demo", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0") as process:
        modbus = address_in(line_of(process), "Modbus")
        control = address_in(line_of(process), "Control")
        with socket.create_connection(modbus), socket.create_connection(control):
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0


def test_the_served_log_is_there_for_others_while_it_runs(tmp_path: Path) -> None:
    log = tmp_path / "served.jsonl"
    with living("run", "calm-shift", "--listen", "127.0.0.1:0", "--served-log", str(log)) as process:
        read_inputs(address_in(line_of(process), "Modbus"))
        (line,) = log.read_text().splitlines()
        assert json.loads(line)["values"] == [1, 1, 1, 1, 0, 1, 1, 1]


def test_the_control_port_shares_its_clock_with_other_processes() -> None:
    with living("run", "calm-shift", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0") as process:
        line_of(process)
        control = address_in(line_of(process), "Control")
        with socket.create_connection(control, timeout=5) as connection, connection.makefile("rw") as lines:
            before_ms = clock_ms()
            lines.write('{"do": "press", "machine": "mixer-18", "guard": "estop"}\n')
            lines.flush()
            answer = json.loads(lines.readline())
            assert answer["done"]
            assert before_ms - 1 <= answer["mono_ms"] <= clock_ms()


def clock_ms() -> float:
    """CLOCK_MONOTONIC, the clock of the machine."""
    return time.clock_gettime(time.CLOCK_MONOTONIC) * 1000


def test_list_names_the_scenarios_in_both_languages() -> None:
    listed = json.loads(finished("list", "--json").stdout)
    assert "demo" in {scenario["name"] for scenario in listed}
    assert all(set(scenario["labels"]) == {"zh", "en"} for scenario in listed)
    assert "door-open-while-running" in finished("list").stdout


def test_load_serves_as_many_endpoints_as_asked() -> None:
    with living("load", "--servers", "3", "--units", "2", "--json") as process:
        addresses = json.loads(line_of(process))["modbus"]
        assert len(addresses) == 3
        for address in addresses:
            host, port = address.split(":")
            assert read_inputs((host, int(port)))[:9] == bytes.fromhex("0007 0000 0004 01 02 01")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0


def test_proxy_spoils_as_told_and_can_be_told_anew() -> None:
    with living("run", "calm-shift", "--listen", "127.0.0.1:0") as plant:
        host, port = address_in(line_of(plant), "Modbus")
        with living(
            "proxy", f"{host}:{port}", "--fault", "wrong-unit", "--control", "127.0.0.1:0"
        ) as process:
            proxy = address_in(line_of(process), "Proxy")
            control = address_in(line_of(process), "Control")
            assert read_inputs(proxy)[6] == 0x54
            with (
                socket.create_connection(control, timeout=5) as connection,
                connection.makefile("rw") as lines,
            ):
                lines.write('{"faults": []}\n{"faults": [{"kind": "rain"}]}\n')
                lines.flush()
                assert json.loads(lines.readline()) == {
                    "ok": True,
                    "connections": 1,
                    "struck": {"wrong-unit": 1},
                }
                assert "kinds are latency, late" in json.loads(lines.readline())["error"]
            assert read_inputs(proxy)[6] == 0x01


def test_device_serves_a_product_by_the_names_of_its_points() -> None:
    args = ("--set", "i1=true", "--set", "i8=true", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0")
    with living("device", "wago-750", *args) as process:
        address = address_in(line_of(process), "Modbus")
        control = address_in(line_of(process), "Control")
        assert read_inputs(address)[-1] == 0b0000_0010
        with socket.create_connection(control, timeout=5) as connection:
            connection.sendall(b'{"set": {"i0": true, "i1": false}}\n')
            assert json.loads(connection.recv(1000)) == {"ok": True, "set": 2}
        assert read_inputs(address)[-1] == 0b0000_0001


def test_run_serves_a_serial_port_under_the_name_it_is_given(tmp_path: Path) -> None:
    port = tmp_path / "ttyPLANT"
    with living("run", "calm-shift", "--serial", str(port)) as process:
        assert line_of(process) == f"Modbus: {port}\n"
        assert port.readlink().is_relative_to("/dev/pts")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0
        assert not port.is_symlink()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plant")])
    born = datetime(2026, 1, 1, tzinfo=UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(born)
        .not_valid_after(born + timedelta(days=36_500))
        .sign(key, hashes.SHA256())
    )
    pem = built.public_bytes(Encoding.PEM)
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path / "plant.pem"
    path.write_bytes(pem)
    return path


def test_run_serves_modbus_over_tls(certificate: Path) -> None:
    with living(
        "run", "calm-shift", "--listen", "127.0.0.1:0", "--transport", "tls", "--cert-file", str(certificate)
    ) as process:
        address = address_in(line_of(process), "Modbus")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(address, timeout=5) as plain, context.wrap_socket(plain) as secure:
            secure.sendall(bytes.fromhex("0007 0000 0006 01 02 0000 0008"))
            assert secure.recv(100)[:9] == bytes.fromhex("0007 0000 0004 01 02 01")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["run", "dmeo"], "SCENARIO: there is no `dmeo` — choose bad-wire"),
        (["run", "./nowhere.yaml"], "nowhere.yaml:1:1: there is no such file — check the path"),
        (["run", "demo", "--listen", "5020"], "--listen: `5020` is no address — write HOST:PORT"),
        (["run", "demo", "--listen", "127.0.0.1:99999"], "--listen: `127.0.0.1:99999` is no address"),
        (["run", "demo", "--control", "0.0.0.0:1"], "--control: 0.0.0.0 could be reached from outside"),
        (
            ["run", "demo", "--served-log", "/nowhere/x"],
            "--served-log: /nowhere/x: No such file or directory — ",
        ),
        (["run", "demo", "--speed", "-1"], "--speed"),
        (["run", "demo", "--transport", "tls"], "--cert-file: TLS needs a certificate — add --cert-file"),
        (["run", "demo", "--cert-file", "x"], "--cert-file: tcp has no certificates — add --transport tls"),
        (
            ["load", "--transport", "tls", "--cert-file", "/nowhere/x"],
            "/nowhere/x: No such file or directory — give PEM files that belong together",
        ),
        (
            ["load", "--listen", "127.0.0.1:65534", "--servers", "4"],
            "--listen: 4 ports do not fit above 65534",
        ),
        (["load", "--units", "300"], "--units"),
        (["device", "pilz"], "there is no profile pilz — profiles here: banner-isd, "),
        (["device", "delta-dvp", "--set", "X8=true"], "the profile has no point X8"),
        (["fly"], "fly"),
    ],
)
def test_bad_usage_is_told_with_exit_code_2_and_no_traceback(args: list[str], text: str) -> None:
    done = finished(*args)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_wrong_scenario_file_tells_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("labels: {zh: 甲, en: A}\nsteps:\n  - {at_s: 1, do: fly}\n  - {at_s: 0, do: listen}\n")
    done = finished("run", str(path))
    assert done.returncode == 2
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [f"{path}:3:19", f"{path}:4:12"]


def test_a_taken_port_is_a_failure_with_its_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = finished("run", "demo", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot listen on 127.0.0.1:{port} — choose another port")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["run", "list", "load", "proxy", "device"])
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = finished(verb, "--help")
    assert done.returncode == 0
    assert f"Example: guardwatch-sim {verb}" in done.stdout
