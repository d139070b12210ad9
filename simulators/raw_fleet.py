"""A fleet that answers as fast as Python can: for measuring readers, not for playing a plant.

One endpoint is one device with one unit and one image of `points` discrete inputs, 1 = closed, and one more that is
always 1 (the machine runs). Coils hold the same image; a register holds sixteen of its bits. Every distinct request is
answered from bytes that were built when it first came; a change of the image throws the device's bytes away. So a
benchmark of a thousand devices measures the reader and not this process.

Doors open by the seed at random times, `changes_per_s` openings and closings in all, each closed again after
`OPEN_S`. Each change is written to `log` as one JSON line `{"at_ns", "device", "point", "closed"}` in the step of the
loop that applies it; `at_ns` is the machine's CLOCK_MONOTONIC, which all processes of one boot share. The first line
`{"at_ns", "asked": N}` says when each of the N devices had been read once.

What it refuses, it refuses as the standard says (Modbus Application Protocol 1.1b3, 7): another function with
exception 01, addresses beyond the image 02, a count that no answer can hold 03; another unit than 1 gets 0B, as from a
gateway whose target is silent. A frame that is no Modbus closes the connection.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TextIO, cast

from simulators.draw import Draw
from simulators.register_bank import WORD_BITS

OPEN_S: Final = 3.0
"""How long a door stays open: beyond the second after which an open guard on a running machine is a violation."""

UNIT: Final = 1
POINTS_MAX: Final = 1_999
"""What one read of 2000 bits can see, beside the bit that says that the machine runs."""

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_COUNT, TARGET_SILENT = 0x01, 0x02, 0x03, 0x0B
_BITS_MAX: Final = {1: 2000, 2: 2000}
_WORDS_MAX: Final = {3: 125, 4: 125}
_EXCEPTION_FLAG: Final = 0x80
_ADDRESS_END: Final = 1 << 16

_HEADER: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">BHH")
_READ_FRAME_BYTES: Final = _HEADER.size + _READ.size
_READ_LENGTH: Final = _READ.size + 1


@dataclass(frozen=True, slots=True)
class RawPlan:
    """How many devices with how many doors each, and how busy. `first_port` 0 takes free ports."""

    devices: int
    points: int
    changes_per_s: float
    host: str = "127.0.0.1"
    first_port: int = 0
    seed: int = 0


class RawDevice:
    """One image and the answers to what was asked of it."""

    def __init__(self, points: int) -> None:
        self.points = points
        self._bits = [True] * (points + 1)
        self._answers: dict[bytes, bytes] = {}

    def set_bit(self, point: int, *, closed: bool) -> None:
        """Open or close a door."""
        self._bits[point] = closed
        self._answers.clear()

    def answer(self, request: bytes) -> bytes:
        """What follows the transaction and protocol ids of the answer to `request` (unit id and PDU)."""
        found = self._answers.get(request)
        if found is None:
            found = self._answers[request] = self._build(request)
        return found

    def _build(self, request: bytes) -> bytes:
        unit, function = request[0], request[1]
        limit = _BITS_MAX.get(function) or _WORDS_MAX.get(function)
        if unit != UNIT:
            return _refusal(unit, function, TARGET_SILENT)
        if limit is None:
            return _refusal(unit, function, ILLEGAL_FUNCTION)
        if len(request) != _READ_LENGTH:
            return _refusal(unit, function, ILLEGAL_COUNT)
        _, start, count = _READ.unpack(request[1:])
        if not 1 <= count <= limit:
            return _refusal(unit, function, ILLEGAL_COUNT)
        data = self._data(start, count, is_bits=function in _BITS_MAX)
        if data is None:
            return _refusal(unit, function, ILLEGAL_ADDRESS)
        return struct.pack(">HBBB", 3 + len(data), unit, function, len(data)) + data

    def _data(self, start: int, count: int, *, is_bits: bool) -> bytes | None:
        first, size = (start, count) if is_bits else (start * WORD_BITS, count * WORD_BITS)
        held = len(self._bits) if is_bits else -(-len(self._bits) // WORD_BITS) * WORD_BITS
        if first + size > held or start + count > _ADDRESS_END:
            return None
        packed = sum(1 << index for index, bit in enumerate(self._bits[first : first + size]) if bit)
        if is_bits:
            return packed.to_bytes((count + 7) // 8, "little")
        words = ((packed >> WORD_BITS * index) & 0xFFFF for index in range(count))
        return b"".join(word.to_bytes(2, "big") for word in words)


def _refusal(unit: int, function: int, code: int) -> bytes:
    return struct.pack(">HBBB", 3, unit, function | _EXCEPTION_FLAG, code)


class _Answering(asyncio.Protocol):
    """One client connection of one device."""

    def __init__(self, device: RawDevice, on_read: Callable[[], None]) -> None:
        self._device = device
        self._on_read: Callable[[], None] | None = on_read
        self._rest = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._rest and len(data) == _READ_FRAME_BYTES and data[2:6] == b"\x00\x00\x00\x06":
            self._transport.write(data[:4] + self._device.answer(data[6:]))
        else:
            self._answer_frames(self._rest + data)
        if self._on_read is not None:
            self._on_read()
            self._on_read = None

    def _answer_frames(self, data: bytes) -> None:
        while len(data) >= _HEADER.size:
            _, protocol, length, _ = _HEADER.unpack_from(data)
            if protocol != 0 or length < 2:
                self._transport.abort()
                return
            end = 6 + length
            if len(data) < end:
                break
            self._transport.write(data[:4] + self._device.answer(data[6:end]))
            data = data[end:]
        self._rest = data


def fast_loop() -> asyncio.AbstractEventLoop:
    """The event loop of uvloop where it is installed (a third of the processor time), else asyncio's own."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    return cast("asyncio.AbstractEventLoop", uvloop.new_event_loop())


class RawFleet:
    """The fleet; `start`, `run` until cancelled, `stop`."""

    def __init__(self, plan: RawPlan, log: TextIO | None = None) -> None:
        assert plan.devices >= 1
        assert 1 <= plan.points <= POINTS_MAX
        self.plan = plan
        self.devices = [RawDevice(plan.points) for _ in range(plan.devices)]
        self.changes = 0
        self._log = log
        self._unread = set(range(plan.devices))
        self._open: set[tuple[int, int]] = set()
        self._draw = Draw(plan.seed).split("raw fleet")
        self._servers: list[asyncio.Server] = []

    async def start(self) -> list[tuple[str, int]]:
        """Listen everywhere; returns the addresses. Raises OSError when a port cannot be had."""
        loop = asyncio.get_running_loop()
        for number, device in enumerate(self.devices):
            port = self.plan.first_port + number if self.plan.first_port else 0
            server = await loop.create_server(self._endpoint(number, device), self.plan.host, port)
            self._servers.append(server)
        return [server.sockets[0].getsockname()[:2] for server in self._servers]

    async def run(self) -> None:
        """Open doors and close them again, until cancelled."""
        loop = asyncio.get_running_loop()
        if not self.plan.changes_per_s:
            await loop.create_future()
        pause_s = 2 / self.plan.changes_per_s  # an opening brings a closing
        due_s = loop.time()
        while True:
            due_s += pause_s * self._draw.between(500, 1500) / 1000
            await asyncio.sleep(due_s - loop.time())
            door = self.open_next()
            if door is not None:
                loop.call_later(OPEN_S, partial(self._set, *door, closed=True))

    def open_next(self) -> tuple[int, int] | None:
        """Open the next door drawn; returns (device, point), or None where it stands open already."""
        device = self._draw.between(0, self.plan.devices - 1)
        point = self._draw.between(0, self.plan.points - 1)
        if (device, point) in self._open:
            return None
        self._set(device, point, closed=False)
        return device, point

    async def stop(self) -> None:
        """Close every port."""
        for server in self._servers:
            server.close()

    def _set(self, device: int, point: int, *, closed: bool) -> None:
        (self._open.discard if closed else self._open.add)((device, point))
        self.devices[device].set_bit(point, closed=closed)
        self.changes += 1
        self._note({"device": device, "point": point, "closed": closed})

    def _endpoint(self, number: int, device: RawDevice) -> Callable[[], _Answering]:
        def read_once() -> None:
            if number in self._unread:
                self._unread.discard(number)
                if not self._unread:
                    self._note({"asked": self.plan.devices})

        return lambda: _Answering(device, read_once)

    def _note(self, what: dict[str, object]) -> None:
        if self._log is not None:
            self._log.write(json.dumps({"at_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC)} | what) + "\n")
            self._log.flush()
