"""`probe`, `scan` and `doctor`: looking at devices and surroundings before, or instead of, running.

Everything here reads: function codes 1 to 4, one request in flight, and never faster than a person needs it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_agent.adapters.clock_system import SystemClock
from edge_agent.adapters.fieldbus_mbap import MbapLink
from edge_agent.adapters.store_reading import StoreUnreadableError, read_end
from edge_agent.adapters.uplink_paho import PahoUplink
from edge_agent.app.exits import Exit, complain, refuse, say, say_json
from edge_agent.app.running import broker_access
from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.readplan import block_limit
from edge_agent.domain.units import BlockId, DeviceId
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome, LinkDown, LinkUp, Publication, UplinkReport
from edge_agent.settings import AgentSettings, load
from edge_agent.settings.link import READABLE, BadUrl, parse_link
from edge_agent.wire.event import Json

SCAN_TIMEOUT_MS: Final = 300
"""What a unit behind a serial gateway needs at 19200 baud, and more."""

PROBE_TIMEOUT_MS: Final = 2000
DOCTOR_BROKER_S: Final = 8.0
WATCH_PAUSE_S: Final = 0.1
"""Pause between two looks of `--find-bit`: a door opened by hand is seen, and the device hardly feels it."""

UNITS: Final = range(1, 248)
"""Units of a serial line behind a gateway (Modbus over Serial Line 1.02, 2.2)."""


@dataclass(frozen=True, slots=True)
class Look:
    """What to read: `count` items of `table` of `unit` from `start`."""

    unit: int
    table: Table
    start: int
    count: int

    def block(self) -> ReadBlock:
        """As a request."""
        return ReadBlock(BlockId(0), DeviceId("probe"), self.table, self.start, self.count, (), 0, 0)


def probe(url: str, look: Look, *, find_bit: bool, as_json: bool) -> Exit:
    """Print raw items once, or (`find_bit`) each bit that changes until interrupted."""
    address = _address(url)
    if isinstance(address, str):
        return refuse(address)
    if not 1 <= look.count <= block_limit(look.table) or look.start + look.count > 65536:
        limit = block_limit(look.table)
        return refuse(f"{look.count} items from {look.start} do not fit one request — at most {limit}")
    if find_bit:
        return asyncio.run(_find_bit(address, look, as_json=as_json))
    outcome = asyncio.run(_read_once(address, look))
    if isinstance(outcome, BlockFailed):
        complain([f"{url}: unit {look.unit}: no answer to believe: {outcome.reason}"])
        return Exit.FAILED
    items = _items(look, outcome.data)
    if as_json:
        table: Json = {str(number): value for number, value in items}
        say_json({"unit": look.unit, "table": look.table.value, "items": table})
        return Exit.OK
    for number, value in items:
        shown = str(value) if look.table.is_bits else f"{value:5d}  0x{value:04X}  {value:016b}"
        say(f"{look.table.value}/{number}  {shown}")
    return Exit.OK


def scan(url: str, *, first: int, last: int, as_json: bool) -> Exit:
    """Print which units answer: a refusal (an exception reply) is an answer too."""
    address = _address(url)
    if isinstance(address, str):
        return refuse(address)
    found = asyncio.run(_scan(address, range(first, last + 1)))
    if isinstance(found, str):
        complain([f"{url}: {found}"])
        return Exit.FAILED
    if as_json:
        units: Json = [{"unit": unit, "answer": answer} for unit, answer in found]
        say_json({"units": units})
    else:
        for unit, answer in found:
            say(f"unit {unit}: {answer}")
        complain([f"{len(found)} of {last - first + 1} units answer"])
    return Exit.OK if found else Exit.FAILED


def doctor(config: Path, *, as_json: bool) -> Exit:
    """Check configuration, store, clock, devices and broker, and say what is wrong with each."""
    settings = load(config, os.environ)
    if isinstance(settings, list):
        return refuse(*settings)
    found = [*_local_findings(settings), *asyncio.run(_remote_findings(settings))]
    if as_json:
        findings: Json = [{"what": what, "ok": fault is None, "fault": fault} for what, fault in found]
        say_json({"ok": all(fault is None for _, fault in found), "findings": findings})
    else:
        for what, fault in found:
            say(f"{'ok ' if fault is None else 'BAD'} {what}" + (f": {fault}" if fault else ""))
    return Exit.OK if all(fault is None for _, fault in found) else Exit.FAILED


_Finding = tuple[str, str | None]


def _local_findings(settings: AgentSettings) -> Iterator[_Finding]:
    yield "configuration", None
    path = settings.store.path
    if not path.exists():
        yield f"store {path}", None if os.access(_existing(path), os.W_OK) else "cannot be made there"
    else:
        try:
            read_end(path)
        except StoreUnreadableError as error:
            yield f"store {path}", str(error)
        else:
            yield f"store {path}", None
    is_synced = SystemClock().pair().synced
    yield "clock", None if is_synced else "not synchronised: events say so (install chrony)"


def _existing(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.exists())


async def _remote_findings(settings: AgentSettings) -> list[_Finding]:
    found: list[_Finding] = []
    plan = settings.plan
    for device in plan.devices.values():
        async with _link(_url_address(device.url)) as link:
            for index in device.blocks:
                block = plan.blocks[index]
                outcome = await link.read(device.unit, block, device.timeout_ms)
                fault = outcome.reason if isinstance(outcome, BlockFailed) else None
                what = (
                    f"device {device.id} {block.table.value}/{block.start}..{block.start + block.count - 1}"
                )
                found.append((what, fault))
    access = broker_access(settings)
    found.append((f"broker {access.host}:{access.port}", await _broker_fault(settings)))
    return found


async def _broker_fault(settings: AgentSettings) -> str | None:
    """Connect as `doctor`, so that a running agent of the same name is not thrown off."""
    said: asyncio.Queue[UplinkReport] = asyncio.Queue()
    uplink = PahoUplink(broker_access(settings, role="doctor"))
    uplink.open(Publication("guardwatch/v1/doctor", b"", retained=False), said.put_nowait)
    try:
        async with asyncio.timeout(DOCTOR_BROKER_S):
            while True:
                match await said.get():
                    case LinkUp():
                        return None
                    case LinkDown(reason):
                        return reason
                    case _:
                        continue
    except TimeoutError:
        return "no answer"
    finally:
        await uplink.close()


async def _read_once(address: tuple[str, int], look: Look) -> BlockOutcome:
    async with _link(address) as link:
        return await link.read(look.unit, look.block(), PROBE_TIMEOUT_MS)


async def _find_bit(address: tuple[str, int], look: Look, *, as_json: bool) -> Exit:
    complain(["watching: operate the contact; each change is shown; Ctrl-C ends"])
    before: dict[int, int] = {}
    async with _link(address) as link:
        while True:
            outcome = await link.read(look.unit, look.block(), PROBE_TIMEOUT_MS)
            if isinstance(outcome, BlockOk):
                for number, value in _items(look, outcome.data):
                    changed = before.get(number, value) ^ value
                    for bit in (bit for bit in range(16) if changed >> bit & 1):
                        _say_change(look.table, number, bit, value >> bit & 1, as_json=as_json)
                    before[number] = value
            await asyncio.sleep(WATCH_PAUSE_S)


def _say_change(table: Table, number: int, bit: int, value: int, *, as_json: bool) -> None:
    at = f"{table.value}/{number}" if table.is_bits else f"{table.value}/{number}.{bit}"
    if as_json:
        say_json({"at": at, "value": value})
    else:
        say(f"{at}  {1 - value} -> {value}")


async def _scan(address: tuple[str, int], units: range) -> list[tuple[int, str]] | str:
    found: list[tuple[int, str]] = []
    async with _link(address) as link:
        for unit in units:
            outcome = await link.read(unit, Look(unit, Table.HOLDING_REGISTER, 0, 1).block(), SCAN_TIMEOUT_MS)
            match outcome:
                case BlockOk():
                    found.append((unit, "answers"))
                case BlockFailed("link"):
                    return "cannot connect"
                case BlockFailed(reason) if reason.startswith("exception:"):
                    found.append((unit, f"answers with {reason}"))
                case _:
                    continue
    return found


@asynccontextmanager
async def _link(address: tuple[str, int]) -> AsyncIterator[MbapLink]:
    link = MbapLink(*address)
    try:
        yield link
    finally:
        await link.close()


def _address(url: str) -> tuple[str, int] | str:
    """Host and port, or what is wrong with the URL."""
    try:
        link = parse_link(url)
    except BadUrl as bad:
        return f"{url}: {bad.what} — {bad.mend}"
    if link.scheme not in READABLE:
        return f"{url}: this version reads {', '.join(READABLE)} only — put a Modbus TCP gateway before it"
    return _url_address(link.url)


def _url_address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 502


def _items(look: Look, data: bytes) -> list[tuple[int, int]]:
    """Item numbers and raw values of an answer."""
    if look.table.is_bits:
        return [(look.start + index, data[index // 8] >> index % 8 & 1) for index in range(look.count)]
    words = [int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2)]
    return list(enumerate(words, look.start))
