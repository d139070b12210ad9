"""Modbus/TCP Security: who is let in, and that a refusal says what it is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.app.links import DeviceLink, make_link
from edge_agent.ports import BlockFailed, BlockOutcome
from edge_agent.settings.link import parse_link
from edge_agent.settings.settled import CertificateFiles
from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import RegisterBank
from tests.certificates import Authority
from tests.fieldbus_rig import PATIENT_MS, block, is_ok

pytestmark = pytest.mark.thorough


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls-1.2", "tls-1.3"])
async def server(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[RegisterBankServer]:
    context = authority.server_context()
    context.minimum_version = context.maximum_version = request.param
    async with RegisterBankServer(RegisterBank([1]), tls=context) as server:
        yield server


def link_to(server: RegisterBankServer, files: CertificateFiles, host: str = "127.0.0.1") -> DeviceLink:
    url = f"modbus+tls://{host}:{server.address[1]}"
    return make_link(parse_link(url), timeout_max_ms=PATIENT_MS, certificates=files)


async def outcome_and_trouble(link: DeviceLink) -> tuple[BlockOutcome, str]:
    """The first outcome that is a closed or impossible connection, and what the link says about it."""
    outcome = await link.read(1, block(), PATIENT_MS)
    await asyncio.sleep(0)  # the keeper of the connection has its turn
    trouble = link.trouble
    await link.close()
    assert trouble is not None
    return outcome, trouble


async def test_both_sides_show_a_certificate(server: RegisterBankServer, authority: Authority) -> None:
    own = authority.sign("agent")
    link = link_to(server, CertificateFiles(authority.ca_file, own.cert_file, own.key_file))
    assert is_ok(await link.read(1, block(), PATIENT_MS))
    await link.close()


async def test_without_a_certificate_of_our_own_the_refusal_names_it(
    server: RegisterBankServer, authority: Authority
) -> None:
    """Under TLS 1.3 connecting succeeds, and only then the connection is closed."""
    outcome, trouble = await outcome_and_trouble(link_to(server, CertificateFiles(authority.ca_file)))
    assert outcome == BlockFailed("link")
    assert trouble.startswith("TLS refused: ")
    assert "cert_file" in trouble


async def test_a_device_of_another_authority_is_refused(server: RegisterBankServer, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    outcome, trouble = await outcome_and_trouble(link_to(server, CertificateFiles(stranger.ca_file)))
    assert outcome == BlockFailed("link")
    assert trouble.startswith("TLS refused: ")
    assert "check ca_file" in trouble


async def test_a_device_under_another_name_is_refused(
    server: RegisterBankServer, authority: Authority
) -> None:
    files = CertificateFiles(authority.ca_file)
    outcome, trouble = await outcome_and_trouble(link_to(server, files, "localhost"))
    assert outcome == BlockFailed("link")
    assert "localhost" in trouble


async def test_a_certificate_of_another_authority_does_not_let_us_in(
    server: RegisterBankServer, authority: Authority, tmp_path: Path
) -> None:
    own = Authority(tmp_path, "stranger").sign("agent")
    files = CertificateFiles(authority.ca_file, own.cert_file, own.key_file)
    outcome, trouble = await outcome_and_trouble(link_to(server, files))
    assert outcome == BlockFailed("link")
    assert trouble.startswith("TLS refused: ")


async def test_a_plain_port_is_no_tls(authority: Authority) -> None:
    async with RegisterBankServer(RegisterBank([1])) as server:
        outcome, trouble = await outcome_and_trouble(link_to(server, CertificateFiles(authority.ca_file)))
    assert outcome == BlockFailed("link")
    assert "connect" in trouble or "TLS refused" in trouble


def test_a_file_that_is_no_certificate_is_an_error_at_once(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(OSError, match="certificate"):
        make_link(parse_link("modbus+tls://plc"), timeout_max_ms=1, certificates=CertificateFiles(file))
