"""A TCP proxy that spoils a connection on purpose: the plant network at its worst.

It sits between a client and a real server and passes bytes on, except where a `Fault` applies: to some
connections (by number, from 0), within some span of time after `start`, to a share of the replies drawn from a
seed. With `framed=True` replies are cut into Modbus/TCP frames (length in bytes 4-5 of the header; Modbus messaging on
TCP/IP V1.0b, 3.1.3), so one reply can be corrupted, doubled, dropped or held back by itself; with `framed=False` each
chunk read is one "reply" and any protocol passes (MQTT, HTTP), for the faults that need no frame.

    client ──▶ requests pass (or are swallowed) ───────────────▶ server
    client ◀── deliver ◀── spoil(fault, frame) ◀── cut frames ◀── server
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from simulators.draw import Draw

CHUNK_BYTES: Final = 65536
HEADER_BYTES: Final = 6  # transaction id, protocol id, length: 2 bytes each
JUNK_BYTES: Final = 300  # longer than the longest legal frame (260)
RESET_NOW: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST instead of FIN


class FaultKind(StrEnum):
    """What goes wrong with a reply, or with the connection when its next bytes come."""

    LATENCY = "latency"  # every reply delay_ms later, order kept
    LATE = "late"  # this reply delay_ms later, those after it pass it by
    DRIBBLE = "dribble"  # byte by byte, delay_ms apart
    SWALLOW = "swallow"  # half-open: requests and replies vanish, the connection stays
    RESET = "reset"  # RST instead of the reply
    RESET_MID_FRAME = "reset-mid-frame"  # half the reply, then RST
    CLOSE = "close"  # FIN instead of the reply
    DROP_REPLY = "drop-reply"
    DUPLICATE = "duplicate"
    JUNK = "junk"  # 300 bytes of noise instead of the reply
    WRONG_TRANSACTION = "wrong-transaction"
    WRONG_UNIT = "wrong-unit"
    WRONG_FUNCTION = "wrong-function"
    WRONG_LENGTH = "wrong-length"  # the header promises one byte more than comes
    SHORT = "short"  # a well-formed reply with one register (or 8 bits) too few


@dataclass(frozen=True, slots=True)
class Fault:
    """When and where a kind of fault strikes. Null `connection` or `until_ms`: all, for ever."""

    kind: FaultKind
    delay_ms: int = 0
    connection: int | None = None
    from_ms: int = 0
    until_ms: int | None = None
    share: float = 1.0

    def applies(self, connection: int, now_ms: float) -> bool:
        """Whether this connection is meant, at this time."""
        in_time = self.from_ms <= now_ms and (self.until_ms is None or now_ms < self.until_ms)
        return in_time and self.connection in {None, connection}


def corrupt(kind: FaultKind, frame: bytes, draw: Draw) -> bytes:
    """The bytes sent instead of the Modbus/TCP reply `frame`."""
    spoilt = bytearray(frame)
    match kind:
        case FaultKind.WRONG_TRANSACTION:
            spoilt[0] ^= 0x55
        case FaultKind.WRONG_UNIT:
            spoilt[6] ^= 0x55
        case FaultKind.WRONG_FUNCTION:
            spoilt[7] ^= 0x07  # 3 and 4, 1 and 2 become other function codes, never an exception's
        case FaultKind.WRONG_LENGTH:
            spoilt[5] += 1
        case FaultKind.SHORT if len(frame) > 10 and not frame[7] & 0x80:
            cut = 2 if frame[7] in {3, 4} else 1
            spoilt[5] -= cut
            spoilt[8] -= cut
            del spoilt[-cut:]
        case FaultKind.JUNK:
            return bytes(draw.between(0, 255) for _ in range(JUNK_BYTES))
        case _:
            pass
    return bytes(spoilt)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST, as a rebooting device or a firewall does."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOW)
    writer.transport.abort()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next whole Modbus/TCP frame. Raises asyncio.IncompleteReadError at the end of the stream."""
    header = await reader.readexactly(HEADER_BYTES)
    return header + await reader.readexactly(int.from_bytes(header[4:6], "big"))


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Whatever came. Raises asyncio.IncompleteReadError at the end of the stream."""
    if data := await reader.read(CHUNK_BYTES):
        return data
    raise asyncio.IncompleteReadError(b"", None)


class FaultProxy:
    """Listens on `address` and passes connections to `upstream`, spoiling them by `faults` (the first that applies).

    `faults` may be replaced at any time; `connections` counts those accepted so far, `struck` each fault done. Use as an async context manager.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        faults: Sequence[Fault] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        framed: bool = True,
    ) -> None:
        self.upstream = upstream
        self.faults: Sequence[Fault] = faults
        self.address = (host, port)
        self.connections = 0
        self.struck: Counter[FaultKind] = Counter()
        self._next = read_frame if framed else read_chunk
        self._draw = Draw(seed).split("fault proxy")
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._started_s = 0.0

    async def start(self) -> tuple[str, int]:
        """Listen; returns the address. The time of faults starts to run."""
        self._server = await asyncio.start_server(self._accept, *self.address)
        self.address = self._server.sockets[0].getsockname()[:2]
        self._started_s = asyncio.get_running_loop().time()
        return self.address

    async def stop(self) -> None:
        """Close the port and every connection: further connections are refused until `start`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _now_ms(self) -> float:
        return (asyncio.get_running_loop().time() - self._started_s) * 1000

    def _fault_of_reply(self, number: int) -> Fault | None:
        for fault in self.faults:
            if fault.applies(number, self._now_ms()) and self._draw.chance(fault.share):
                self.struck[fault.kind] += 1
                return fault
        return None

    def _swallows(self, number: int) -> bool:
        return any(
            fault.kind is FaultKind.SWALLOW and fault.applies(number, self._now_ms()) for fault in self.faults
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        self._spawn(self._serve(number, reader, writer))

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.close()  # the server is not there: the client sees its connection closed
            return
        requests = self._spawn(self._pass_requests(number, reader, up_writer))
        replies = self._spawn(self._pass_replies(number, up_reader, writer))
        try:
            await asyncio.wait({requests, replies}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            requests.cancel()
            replies.cancel()
            writer.close()
            up_writer.close()

    async def _pass_requests(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self._swallows(number):
                    self.struck[FaultKind.SWALLOW] += 1
                else:
                    writer.write(data)
                    await writer.drain()

    async def _pass_replies(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            is_open = True
            while is_open:
                frame = await self._next(reader)
                is_open = await self._deliver(self._fault_of_reply(number), frame, writer)

    async def _deliver(self, fault: Fault | None, frame: bytes, writer: asyncio.StreamWriter) -> bool:
        """Send one reply, spoilt or not; False when the connection is over."""
        match fault.kind if fault else None:
            case FaultKind.RESET | FaultKind.RESET_MID_FRAME | FaultKind.CLOSE as kind:
                if kind is FaultKind.RESET_MID_FRAME:
                    writer.write(frame[: len(frame) // 2])
                    await writer.drain()
                if kind is not FaultKind.CLOSE:
                    reset(writer)
                return False
            case FaultKind.DROP_REPLY | FaultKind.SWALLOW:
                return True
            case FaultKind.LATE:
                assert fault is not None
                self._spawn(self._write_later(fault.delay_ms, frame, writer))
            case FaultKind.DRIBBLE:
                assert fault is not None
                for byte in frame:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(fault.delay_ms / 1000)
            case FaultKind.LATENCY:
                assert fault is not None
                await self._write_later(fault.delay_ms, frame, writer)
            case None:
                writer.write(frame)
            case FaultKind.DUPLICATE:
                writer.write(frame + frame)
            case kind:
                writer.write(corrupt(kind, frame, self._draw))
        await writer.drain()
        return True

    @staticmethod
    async def _write_later(delay_ms: int, frame: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_ms / 1000)
        if not writer.is_closing():
            writer.write(frame)
