"""What the read plan must keep to, and what is wrong with it once it stands.

Two channels of a guard that come in two requests differ by up to a poll and look like a discrepancy at every opening.
Where both are in one table of one device that is a mistake to be mended; across tables or devices it cannot be helped,
and is said.

Source: the outside contract, section 2; Modbus over Serial Line 1.02 (RTU framing).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from edge_agent.configfile import Document, Problem
from edge_agent.domain.plan import ReadBlock, SignalPlan, Table
from edge_agent.domain.readlength import Line
from edge_agent.domain.readplan import ReadLimits, block_limit
from edge_agent.domain.units import DeviceId, SignalId
from edge_agent.settings.checks import stale_ms
from edge_agent.settings.link import RTU_OVER_TCP, SERIAL
from edge_agent.settings.schema import DeviceSection
from edge_agent.settings.spot import Spot

RATES_MAX: Final = 8
"""Poll rates of one device: each costs requests of its own, and nobody oversees more."""

RTU_FRAMED: Final = (SERIAL, RTU_OVER_TCP)
"""Schemes whose answers name no request."""


def read_limits(
    devices: Mapping[str, DeviceSection], avoided: Mapping[str, tuple[tuple[Table, int, int], ...]]
) -> dict[DeviceId, ReadLimits]:
    """What the read plan must keep to, by device; `avoided` are the spans that profiles say must not be read."""
    return {
        DeviceId(name): ReadLimits(
            poll_ms=device.poll_ms,
            stale_ms=stale_ms(device),
            max_bits=device.max_bits,
            max_registers=device.max_registers,
            gap_bits=device.gap_bits,
            gap_registers=device.gap_registers,
            avoid=avoided.get(name, ()),
        )
        for name, device in devices.items()
    }


def rtu_lines(devices: Mapping[str, DeviceSection], urls: Mapping[str, str]) -> list[Line]:
    """The devices of each RTU-framed link with their units, in the order of the file; `urls` are the normalised ones."""
    lines: dict[str, list[tuple[DeviceId, int]]] = {}
    for name, url in urls.items():
        if url.partition("://")[0] in RTU_FRAMED:
            lines.setdefault(url, []).append((DeviceId(name), devices[name].unit))
    return list(lines.values())


def connection_problems(
    document: Document, devices: Mapping[str, DeviceSection], urls: Mapping[str, str]
) -> Iterator[Problem]:
    """Devices of one link that disagree on its connections or its speed, and serial lines that cannot have several."""
    first: dict[str, str] = {}
    on_path: dict[str, str] = {}
    for name, url in urls.items():
        spot, wanted = Spot(document, ("devices", name)), devices[name].connections
        other = first.setdefault(url, name)
        if wanted != devices[other].connections:
            what = (
                f"`connections` is {wanted} here and {devices[other].connections} at {other}, on the same url"
            )
            yield spot.problem(what, "write the same number at both", "connections", at_key=True)
        if wanted > 1 and url.partition("://")[0] in RTU_FRAMED:
            what = f"`connections` is {wanted}, but a line on RTU framing is one wire"
            yield spot.problem(what, "remove it", "connections")
        if url.startswith(SERIAL + "://"):
            path = url.partition("?")[0]
            other = on_path.setdefault(path, name)
            if urls[other] != url:
                what = f"the same serial line is set differently at {other}: only one of them could open it"
                yield spot.problem(what, "write the same baud, parity and stopbits at both", "url")


def request_problems(
    document: Document,
    blocks: Iterable[ReadBlock],
    limits: Mapping[DeviceId, ReadLimits],
    signals: tuple[SignalPlan, ...],
    spots: tuple[Spot, ...],
) -> Iterator[Problem]:
    """Devices read at too many rates, and values wider than their device gives in one answer."""
    rates: dict[DeviceId, set[int]] = {}
    for block in blocks:
        rates.setdefault(block.device, set()).add(block.poll_ms)
    for device, found in rates.items():
        if len(found) > RATES_MAX:
            what = f"{device} is read at {len(found)} different rates, more than {RATES_MAX}"
            mend = f"give its signals at most {RATES_MAX} different poll_ms"
            yield document.problem(("devices", device), what, mend, at_key=True)
    for signal, spot in zip(signals, spots, strict=True):
        most = limits[signal.device].max_registers
        if not signal.table.is_bits and signal.type.registers > most:
            what = f"a {signal.type.value} has {signal.type.registers} registers, more than max_registers of {most}"
            yield spot.problem(what, f"write max_registers: {signal.type.registers} at {signal.device}", "at")


def torn_channels(
    channels: tuple[SignalPlan, ...],
    home: Mapping[SignalId, ReadBlock],
    limits: Mapping[DeviceId, ReadLimits],
) -> tuple[str, str, bool] | None:
    """Why a guard's channels are read in two requests, how to mend it, and whether it must be; None where they are not."""
    if len({home[channel.id].id for channel in channels}) < 2:
        return None
    if len({(channel.device, channel.table) for channel in channels}) > 1:
        what = "are read in two requests, and may differ by a poll"
        return what, "wire both to one table of one device, within one request", False
    first = channels[0]
    most = limits[first.device].block(first.table)
    items = max(channel.end for channel in channels) - min(channel.number for channel in channels)
    mend = "wire them closer together"
    if items <= most:
        return "have addresses between them that must not be read: they would differ by a poll", mend, True
    if most < block_limit(first.table):
        mend += f", or raise {'max_bits' if first.table.is_bits else 'max_registers'} if the device bears it"
    what = (
        f"are {items} items apart, and {first.device} gives {most} in one answer: they would differ by a poll"
    )
    return what, mend, True
