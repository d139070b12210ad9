"""What the read plan costs each link: bytes, requests a second, and the share of time that a bus is busy.

Theory of operation. Requests of a link go out one after the other. On a serial line each one takes

    request ─▶ 3.5 characters ─▶ the device's own time ─▶ answer ─▶ 3.5 characters (─▶ `pause_ms`)

and what all of them take in a second is how busy the line is. Above 100 % it never keeps up; near it, one repeated or
refused request makes every other one late. Of an Ethernet link only its pauses take time that is known beforehand; the
bus behind an RTU-over-TCP gateway is the gateway's, and its speed unknown.

Source: Modbus over Serial Line 1.02, 2.5.1 (characters of 11 bits, silences) and 2.3; Modbus Messaging on TCP/IP 1.0b,
3.1 (MBAP header of 7 bytes); Modbus Application Protocol 1.1b3, 6.1–6.4 (PDUs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from edge_agent.configfile import Document, Problem
from edge_agent.domain.plan import CellPlan, DevicePlan, ReadBlock
from edge_agent.settings.link import SerialLine, parse_link
from edge_agent.settings.spot import Spot

TURNAROUND_MS: Final = 10
"""Assumed between request and answer on a serial line: devices answer once a program cycle, of 2 to 20 ms."""

BUSY_WARN_PCT: Final = 80
"""From here on one repeated request makes others late; the usual planning limit of serial buses."""

SILENCE_CHARS: Final = Fraction(7, 2)
"""Silence that ends a frame (Modbus over Serial Line 1.02, 2.5.1.1) …"""

SILENCE_FAST_MS: Final = Fraction(7, 4)
"""… and its fixed length above 19200 baud (the same)."""

_SILENCE_FIXED_BAUD: Final = 19200
_REQUEST_PDU_BYTES: Final = 5
_ANSWER_PDU_BYTES: Final = 2
_RTU_FRAME_BYTES: Final = 3
_MBAP_BYTES: Final = 7


@dataclass(frozen=True, slots=True)
class RequestLoad:
    """One request: its bytes on the wire, and the time that it takes of its link, as far as that is known."""

    block: ReadBlock
    bytes_out: int
    bytes_in: int
    time_ms: Fraction


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """One link; `baud` None where it is no serial line."""

    url: str
    devices: tuple[DevicePlan, ...]
    requests: tuple[RequestLoad, ...]
    baud: int | None

    @property
    def transport(self) -> str:
        """The URL's scheme."""
        return self.url.partition("://")[0]

    @property
    def rps(self) -> Fraction:
        """Requests a second."""
        return requests_per_second(request.block for request in self.requests)

    @property
    def busy_pct(self) -> Fraction:
        """Known time as a share of all: of a serial line everything, of others the pauses; over all connections."""
        busy = sum((request.time_ms / request.block.poll_ms for request in self.requests), Fraction())
        return 100 * busy / self.devices[0].connections


def requests_per_second(blocks: Iterable[ReadBlock]) -> Fraction:
    """How often all of them together are asked."""
    return sum((Fraction(1000, block.poll_ms) for block in blocks), Fraction())


def link_loads(plan: CellPlan) -> tuple[LinkLoad, ...]:
    """Every link that is read, in the order of its first device."""
    devices: dict[str, list[DevicePlan]] = {}
    for device in plan.devices.values():
        if device.blocks:
            devices.setdefault(device.url, []).append(device)
    return tuple(_link_load(url, own, plan) for url, own in devices.items())


def load_problems(document: Document, loads: Iterable[LinkLoad]) -> tuple[list[Problem], list[Problem]]:
    """What no link can keep up with, and what it hardly can: errors, and warnings."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for load in loads:
        spot = Spot(document, ("devices", load.devices[0].id))
        problems += _timeout_problems(document, load)
        busy = load.busy_pct
        if busy > 100:
            what, mend = _overload(load)
            problems.append(spot.problem(what, mend, at_key=True))
        elif load.baud is not None and busy > BUSY_WARN_PCT:
            what = f"the line of {load.devices[0].id} is {math.ceil(busy)} % busy: one repeated request makes others late"
            warnings.append(spot.problem(what, f"plan for at most {BUSY_WARN_PCT} %: {_SLOWER}", at_key=True))
    return problems, warnings


_SLOWER: Final = "write a longer poll_ms, a higher baud rate, or move signals closer together"


def _overload(load: LinkLoad) -> tuple[str, str]:
    first, needed_pct = load.devices[0], math.ceil(load.busy_pct)
    longer = f"multiply every poll_ms of the link by {needed_pct / 100:.2f} or more"
    if load.baud is None:
        what = f"the pauses of {first.id}'s link alone take {needed_pct} % of its time"
        return what, f"{longer}, or shorten pause_ms"
    what = f"{math.ceil(load.rps)} requests/s keep the line of {first.id} {needed_pct} % busy at {load.baud} baud"
    return what, f"{longer}, raise the baud rate, or move signals closer together"


def _timeout_problems(document: Document, load: LinkLoad) -> Iterator[Problem]:
    """Devices whose longest request cannot be answered within `timeout_ms`, or whose link comes back too late."""
    for device in load.devices:
        spot = Spot(document, ("devices", device.id))
        back_ms = device.connect_pause_ms + device.pause_ms + device.timeout_ms
        if device.connect_pause_ms and back_ms >= device.stale_ms:
            what = f"after one lost connection {device.id} is read again after up to {back_ms} ms, not below stale_ms of {device.stale_ms}"
            yield spot.problem(
                what, "shorten connect_pause_ms or timeout_ms, or lengthen stale_ms", "connect_pause_ms"
            )
        if load.baud is None:
            continue
        own = [request for request in load.requests if request.block.device == device.id]
        slowest_ms = max(request.time_ms for request in own) - device.pause_ms
        if slowest_ms >= device.timeout_ms:
            what = f"one request of {device.id} takes {math.ceil(slowest_ms)} ms at {load.baud} baud, not below timeout_ms of {device.timeout_ms}"
            yield spot.problem(
                what, "write a longer timeout_ms, or smaller max_bits and max_registers", "timeout_ms"
            )


def _link_load(url: str, devices: list[DevicePlan], plan: CellPlan) -> LinkLoad:
    line = parse_link(url).line
    requests = tuple(
        _request_load(plan.blocks[block], device, line) for device in devices for block in device.blocks
    )
    return LinkLoad(url, tuple(devices), requests, None if line is None else line.baud)


def _request_load(block: ReadBlock, device: DevicePlan, line: SerialLine | None) -> RequestLoad:
    frame = _RTU_FRAME_BYTES if device.is_rtu_framed else _MBAP_BYTES
    bytes_out = frame + _REQUEST_PDU_BYTES
    bytes_in = frame + _ANSWER_PDU_BYTES + block.length_bytes
    time_ms = Fraction(device.pause_ms)
    if line is not None:
        char_ms = Fraction(1000 * _char_bits(line), line.baud)
        silence_ms = SILENCE_FAST_MS if line.baud > _SILENCE_FIXED_BAUD else SILENCE_CHARS * char_ms
        time_ms += (bytes_out + bytes_in) * char_ms + 2 * silence_ms + TURNAROUND_MS
    return RequestLoad(block, bytes_out, bytes_in, time_ms)


def _char_bits(line: SerialLine) -> int:
    """Start bit, eight data bits, parity if any, stop bits: eleven, as the standard wants it."""
    return 9 + (line.parity != "N") + line.stopbits
