"""From a device's URL to its link: the one place that knows which framing and which connection each kind has.

    modbus+tcp            MBAP over TCP
    modbus+tls            MBAP over TLS
    modbus+rtuovertcp     RTU over TCP, confirmed: after a failure connect anew, be quiet, read twice
    modbus+rtu            RTU over a serial line, confirmed: after a failure be quiet, read twice

Every verb that reads makes its links here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from edge_agent.adapters.fieldbus_confirmed import ConfirmedLink
from edge_agent.adapters.fieldbus_connection import Timing
from edge_agent.adapters.fieldbus_dial import TcpDial, tls_context
from edge_agent.adapters.fieldbus_framing import MbapFraming, RtuFraming
from edge_agent.adapters.fieldbus_serial import SerialDial, frame_silence_s
from edge_agent.adapters.fieldbus_stream import StreamLink
from edge_agent.domain.plan import DevicePlan
from edge_agent.settings import AgentSettings
from edge_agent.settings.link import Link, parse_link
from edge_agent.settings.settled import CertificateFiles

BAUD_BEHIND_TCP: Final = 9600
"""A serial server does not say how fast its line is; this slow rate is common, and its silence of 4 ms costs little."""

NO_CERTIFICATES: Final = CertificateFiles()

DeviceLink: TypeAlias = StreamLink | ConfirmedLink
"""A `ports.Fieldbus` that can also say what is wrong with its connection (`trouble`)."""


def make_link(
    link: Link,
    *,
    timeout_max_ms: int,
    connect_pause_ms: int = 0,
    certificates: CertificateFiles = NO_CERTIFICATES,
) -> DeviceLink:
    """The link, not yet connected; `timeout_max_ms` is the longest that a read on it may have.

    Raises OSError (ssl.SSLError too) when a certificate file cannot be used.
    """
    if not link.is_rtu:
        files = (certificates.ca_file, certificates.cert_file, certificates.key_file)
        dial = TcpDial(link.host, link.port, tls_context(*files) if link.is_tls else None)
        return StreamLink(dial, MbapFraming(), connect_pause_ms=connect_pause_ms)
    line = link.line
    baud = BAUD_BEHIND_TCP if line is None else line.baud
    stream = StreamLink(
        TcpDial(link.host, link.port)
        if line is None
        else SerialDial(line.path, line.baud, line.parity, line.stopbits),
        RtuFraming(),
        Timing(silence_s=frame_silence_s(baud)),
        connect_pause_ms=connect_pause_ms,
    )
    return ConfirmedLink(stream, quiet_s=timeout_max_ms / 1000, is_dialled=line is None)


def link_of(settings: AgentSettings, devices: Sequence[DevicePlan]) -> DeviceLink:
    """The link of devices that have the same URL. Raises OSError as `make_link`."""
    url = devices[0].url
    return make_link(
        parse_link(url),
        timeout_max_ms=max(device.timeout_ms for device in devices),
        connect_pause_ms=max(device.connect_pause_ms for device in devices),
        certificates=settings.certificates.get(url, NO_CERTIFICATES),
    )


@dataclass(frozen=True, slots=True)
class Reach:
    """How a verb without a configuration reaches a device."""

    url: str
    certificates: CertificateFiles = NO_CERTIFICATES


def tool_link(reach: Reach, timeout_max_ms: int) -> DeviceLink:
    """The link of a verb that needs no configuration. Raises `BadUrl`, and OSError as `make_link`."""
    return make_link(parse_link(reach.url), timeout_max_ms=timeout_max_ms, certificates=reach.certificates)


@asynccontextmanager
async def opened(made: DeviceLink) -> AsyncIterator[DeviceLink]:
    """The link for a while."""
    try:
        yield made
    finally:
        await made.close()
