"""A register bank behind each transport and a link to it, made as the agent makes it; faults may strike in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from edge_agent.app.links import DeviceLink, make_link
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import BlockId, DeviceId
from edge_agent.ports import BlockOk, BlockOutcome, Fieldbus
from edge_agent.settings.link import parse_link
from edge_agent.settings.settled import CertificateFiles
from simulators.endpoint import Site, SpoiltEndpoint, Transport
from simulators.faults import Fault, FaultKind
from simulators.register_bank import RegisterBank
from simulators.register_bank import Table as BankTable
from simulators.serial_line import AT_ONCE
from tests.certificates import Authority

TIMEOUT_MS = 150
"""For reads that are to time out, and what a line on RTU framing must be quiet for."""

PATIENT_MS = 5000


def block(table: Table = Table.HOLDING_REGISTER, start: int = 0, count: int = 4) -> ReadBlock:
    return ReadBlock(BlockId(0), DeviceId("plc"), table, start, count, (), 200, 2000)


def is_ok(outcome: BlockOutcome) -> bool:
    return isinstance(outcome, BlockOk)


async def read_until(link: Fieldbus, wanted: Callable[[BlockOutcome], bool]) -> BlockOutcome:
    """Read again until the outcome is as wanted; the test's own timeout is the bound."""
    while True:
        outcome = await link.read(1, block(), PATIENT_MS)
        if wanted(outcome):
            return outcome
        await asyncio.sleep(0.01)


class Plant:
    """Units 1 and 2 on one endpoint."""

    def __init__(self, transport: Transport, folder: Path, *, seed: int = 1) -> None:
        self.transport = transport
        self.bank = RegisterBank([1, 2])
        self.bank.set_words(1, BankTable.HR, 0, [0x1234, 0xABCD, 7, 65535])
        self.bank.set_words(1, BankTable.IR, 0, [1, 2, 3, 4])
        self._certificates = CertificateFiles()
        tls = None
        if transport is Transport.TLS:
            authority = Authority(folder)
            tls = authority.server_context()
            own = authority.sign("agent")
            self._certificates = CertificateFiles(authority.ca_file, own.cert_file, own.key_file)
        serial = folder / "line" if transport is Transport.RTU else None
        site = Site(transport, serial=serial, pace=AT_ONCE, tls=tls)
        self.endpoint = SpoiltEndpoint(self.bank, site, seed=seed)

    @property
    def is_rtu(self) -> bool:
        """Whether nothing in an answer says which request it belongs to."""
        return self.transport in {Transport.RTU, Transport.RTU_OVER_TCP}

    @property
    def url(self) -> str:
        """What a configuration would say."""
        place = self.endpoint.place
        return f"modbus+{self.transport.value}://{place}" + (
            "?baud=115200" if self.transport is Transport.RTU else ""
        )

    def spoil(self, *faults: Fault | FaultKind) -> None:
        """From now on, these."""
        self.endpoint.faults = [fault if isinstance(fault, Fault) else Fault(fault) for fault in faults]

    def make_link(self, timeout_max_ms: int = TIMEOUT_MS) -> DeviceLink:
        """As the agent makes it."""
        return make_link(parse_link(self.url), timeout_max_ms=timeout_max_ms, certificates=self._certificates)

    @asynccontextmanager
    async def linked(self, timeout_max_ms: int = TIMEOUT_MS) -> AsyncIterator[DeviceLink]:
        """A link for a while."""
        link = self.make_link(timeout_max_ms)
        try:
            yield link
        finally:
            await link.close()


@asynccontextmanager
async def plant_on(
    transport: Transport, folder: Path, faults: Sequence[Fault] = (), *, seed: int = 1
) -> AsyncIterator[Plant]:
    """A plant that is served."""
    plant = Plant(transport, folder, seed=seed)
    plant.endpoint.faults = faults
    await plant.endpoint.start()
    try:
        yield plant
    finally:
        await plant.endpoint.stop()
