"""Where a register bank is served: one choice of transport for the stand-in plant and the fleet alike.

    tcp          Modbus/TCP                      by pymodbus's server
    tls          Modbus/TCP Security (TLS)       the same, with certificates
    rtuovertcp   RTU frames over TCP             by our own slaves, at a serial line's pace
    rtu          RTU on a pseudo-terminal        the same

`SpoiltEndpoint` puts the fault proxy in front of any of them. Over TLS it cannot see frames, so only the faults that any
bytes can have strike there.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from simulators.fault_proxy import FaultProxy, SerialFaultProxy
from simulators.faults import Fault, Framing
from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import RegisterBank
from simulators.serial_line import USUAL, Pace, RtuServer, RtuSlaves, SerialLine
from simulators.served import ServedLog

LOOPBACK: Final = "127.0.0.1"


class Transport(StrEnum):
    """How Modbus is spoken, as in the agent's URLs after `modbus+`."""

    TCP = "tcp"
    TLS = "tls"
    RTU_OVER_TCP = "rtuovertcp"
    RTU = "rtu"


@dataclass(frozen=True, slots=True)
class Site:
    """Where and how. `serial` is the link to make to the pseudo-terminal; `tls` is there when the transport is TLS."""

    transport: Transport = Transport.TCP
    host: str = LOOPBACK
    port: int = 0
    serial: Path | None = None
    pace: Pace = USUAL
    tls: ssl.SSLContext | None = None


FREE_PORT: Final = Site()


class Endpoint(Protocol):
    """Something that serves a bank, and can be gone and come back at the same place."""

    @property
    def place(self) -> str:
        """HOST:PORT, or the path of a serial port; right after `start`."""
        ...

    @property
    def is_listening(self) -> bool:
        """Whether clients can come."""
        ...

    async def start(self) -> object:
        """Let clients come. Raises OSError when the place cannot be had."""
        ...

    async def stop(self) -> None:
        """Drop every client, and let none come."""
        ...


class _TcpServer(Endpoint, Protocol):
    """An endpoint with an address."""

    address: tuple[str, int]


def endpoint(bank: RegisterBank, site: Site, log: ServedLog | None = None) -> Endpoint:
    """Serve `bank` at `site`."""
    if site.transport is Transport.RTU:
        return SerialLine(RtuSlaves(bank, pace=site.pace, log=log), site.serial)
    return _server(bank, site, log)


def _server(bank: RegisterBank, site: Site, log: ServedLog | None) -> _TcpServer:
    if site.transport in {Transport.RTU, Transport.RTU_OVER_TCP}:
        return RtuServer(RtuSlaves(bank, pace=site.pace, log=log), host=site.host, port=site.port)
    assert (site.tls is not None) == (site.transport is Transport.TLS), "TLS has certificates, and only TLS"
    return RegisterBankServer(bank, host=site.host, port=site.port, log=log, tls=site.tls)


_FRAMINGS: Final = {
    Transport.TCP: Framing.MBAP,
    Transport.TLS: Framing.RAW,
    Transport.RTU_OVER_TCP: Framing.RTU,
    Transport.RTU: Framing.RTU,
}


class SpoiltEndpoint:
    """A bank behind a fault proxy, served at `site`. `faults` may be replaced at any time."""

    def __init__(
        self, bank: RegisterBank, site: Site, log: ServedLog | None = None, *, seed: int = 0
    ) -> None:
        self._server = _server(bank, replace(site, host=LOOPBACK, port=0), log)
        nowhere = (LOOPBACK, 0)
        self.proxy: FaultProxy = (
            SerialFaultProxy(nowhere, path=site.serial, seed=seed)
            if site.transport is Transport.RTU
            else FaultProxy(
                nowhere, host=site.host, port=site.port, seed=seed, framing=_FRAMINGS[site.transport]
            )
        )

    @property
    def faults(self) -> Sequence[Fault]:
        """What goes wrong now."""
        return self.proxy.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault]) -> None:
        self.proxy.faults = faults

    @property
    def place(self) -> str:
        """HOST:PORT, or the path of a serial port; right after `start`."""
        return self.proxy.place

    @property
    def is_listening(self) -> bool:
        """Whether clients can come."""
        return self.proxy.is_listening

    async def start(self) -> None:
        """Let clients come. Raises OSError when the place cannot be had."""
        await self._server.start()
        self.proxy.upstream = self._server.address
        await self.proxy.start()

    async def stop(self) -> None:
        """Drop every client, and let none come."""
        await self.proxy.stop()
        await self._server.stop()
