"""Links of devices: serial settings by the standard's rule, and certificates that every device of a link agrees on."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.configfile import Problem
from edge_agent.settings import AgentSettings, load
from edge_agent.settings.link import BadUrl, SerialLine, parse_broker, parse_link

HEAD = """\
site: changyi
agent: gw-01
labels: {zh: 网关, en: Gateway}
mqtt: {url: mqtt://127.0.0.1}
store: {path: gw.db}
devices:
"""
MACHINE = """\
machines:
  mixer:
    labels: {zh: 混砂机, en: Mixer}
    signals: {running: {at: plc1/di/4}}
    guards: {door: {labels: {zh: 门, en: Door}, kind: interlocked_door, channels: [{at: plc1/di/0}, {at: plc1/di/1}]}}
"""
TLS = "url: modbus+tls://192.0.2.10, ca_file: ca.pem"


def loaded(folder: Path, *devices: str) -> AgentSettings | list[Problem]:
    for name in ("ca.pem", "c.pem", "k.pem", "other.pem"):
        (folder / name).write_text("pem")
    lines = [f"  plc{number}: {{{device}}}\n" for number, device in enumerate(devices, 1)]
    (folder / "agent.yaml").write_text(HEAD + "".join(lines) + MACHINE)
    return load(folder / "agent.yaml", {})


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("", SerialLine("/dev/ttyS1", 19200, "E", 1)),
        ("?parity=N&baud=9600", SerialLine("/dev/ttyS1", 9600, "N", 2)),
        ("?parity=N&stopbits=1", SerialLine("/dev/ttyS1", 19200, "N", 1)),
        ("?parity=o&stopbits=2", SerialLine("/dev/ttyS1", 19200, "O", 2)),
    ],
)
def test_without_parity_a_second_stop_bit_takes_its_place(options: str, line: SerialLine) -> None:
    """Modbus over Serial Line 1.02, 2.5.1."""
    assert parse_link(f"modbus+rtu:///dev/ttyS1{options}").line == line


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("modbus+tcp://h", ("h", 502)),
        ("modbus+tls://h", ("h", 802)),
        ("modbus+rtuovertcp://[2001:db8::1]:4001", ("2001:db8::1", 4001)),
    ],
)
def test_links_over_ip_have_host_and_port(url: str, endpoint: tuple[str, int]) -> None:
    link = parse_link(url)
    assert (link.host, link.port) == endpoint


@pytest.mark.parametrize("host", ["a" * 64, "a..b", ".a"])
def test_a_host_that_no_resolver_takes_is_refused(host: str) -> None:
    with pytest.raises(BadUrl, match="no host name"):
        parse_link(f"modbus+tcp://{host}:502")
    with pytest.raises(BadUrl, match="no host name"):
        parse_broker(f"mqtt://{host}:1883")


@pytest.mark.parametrize("url", ["modbus+tls://h", "modbus+rtuovertcp://h:4001", "modbus+rtu:///dev/ttyUSB0"])
def test_every_transport_is_read(tmp_path: Path, url: str) -> None:
    assert isinstance(loaded(tmp_path, f"url: '{url}'"), AgentSettings)


def test_certificates_of_a_link_are_found_beside_the_file(tmp_path: Path) -> None:
    found = loaded(tmp_path, f"{TLS}, cert_file: c.pem, key_file: k.pem")
    assert isinstance(found, AgentSettings), found
    files = found.certificates["modbus+tls://192.0.2.10:802"]
    assert (files.ca_file, files.cert_file, files.key_file) == tuple(
        tmp_path / name for name in ("ca.pem", "c.pem", "k.pem")
    )


@pytest.mark.parametrize(
    ("devices", "what"),
    [
        ([f"{TLS}, cert_file: c.pem"], "`cert_file` stands without `key_file`"),
        (["url: modbus+tls://h, ca_file: none.pem"], "`ca_file`: "),
        (["url: modbus+tcp://h, ca_file: ca.pem"], "`ca_file` needs an encrypted link, not modbus+tcp"),
        (
            [TLS, "url: modbus+tls://192.0.2.10:802, unit: 2, ca_file: other.pem"],
            "8:62: `ca_file` differs from that of plc1",
        ),
        ([TLS, "url: modbus+tls://192.0.2.10, unit: 2"], "`ca_file` differs from that of plc1"),
    ],
)
def test_certificate_keys_that_cannot_be_meant_so_are_refused(
    tmp_path: Path, devices: list[str], what: str
) -> None:
    found = loaded(tmp_path, *devices)
    assert isinstance(found, list)
    assert any(what in str(problem) for problem in found), "\n".join(map(str, found))


def test_a_store_whose_path_no_file_can_have_is_refused_where_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    head = HEAD.replace("path: gw.db", 'path: "gw\\0.db"')
    path.write_text(head + "  plc1: {url: modbus+tcp://192.0.2.10}\n" + MACHINE)
    found = load(path, {})
    assert isinstance(found, list)
    assert [*map(str, found)] == [f"{path}:5:15: `path`: no path holds a NUL — write the path of a file"]
