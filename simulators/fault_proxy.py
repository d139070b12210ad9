"""A proxy that spoils a connection on purpose: the plant network at its worst.

It sits between a client and a real server and passes bytes on, except where a `Fault` applies: to some connections (by
number, from 0) or units, within some span of time after `start`, to a share of the replies drawn from a seed. Requests
and replies are cut into frames, so one reply can be corrupted, doubled, dropped or held back by itself:

    mbap    by the length in bytes 4-5 of the header (Modbus messaging on TCP/IP V1.0b, 3.1.3)
    rtu     by function and byte count, which the honest server behind us keeps to
    raw     each chunk read is one "reply", and any protocol passes (MQTT, HTTP), for the faults that need no frame

    client ──▶ requests pass, vanish, or are answered from memory ──▶ server
    client ◀── deliver ◀── spoil(fault, frame) ◀── cut frames ◀────── server

`FaultProxy` listens on TCP, `SerialFaultProxy` is a pseudo-terminal; behind both is a server on TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from simulators.draw import Draw
from simulators.faults import Fault, FaultKind, Frame, Framing, kinds_of, spoil
from simulators.pseudo_terminal import PseudoTerminal
from simulators.rtu import reply_bytes, request_bytes

CHUNK_BYTES: Final = 65536
HEADER_BYTES: Final = 6  # transaction id, protocol id, length: 2 bytes each
RESET_NOW: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST instead of FIN
ASKED_MAX: Final = 64  # requests without a reply that are remembered; a client keeps one in flight
REDIAL_S: Final = 0.05  # a serial line's server that went away is looked for this often


def reset(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection by RST, as a rebooting device or a firewall does."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOW)
    writer.transport.abort()


async def read_frame(reader: asyncio.StreamReader, framing: Framing, *, is_request: bool = False) -> bytes:
    """The next whole frame (raw: whatever came). Raises asyncio.IncompleteReadError at the end of the stream."""
    match framing:
        case Framing.MBAP:
            header = await reader.readexactly(HEADER_BYTES)
            return header + await reader.readexactly(int.from_bytes(header[4:6], "big"))
        case Framing.RTU:
            length_of = request_bytes if is_request else reply_bytes
            frame = b""
            while (length := length_of(frame)) is None:
                frame += await reader.readexactly(1)
            return frame + await reader.readexactly(length - len(frame))
        case Framing.RAW:
            if data := await reader.read(CHUNK_BYTES):
                return data
            raise asyncio.IncompleteReadError(b"", None)


@dataclass(slots=True)
class _Connection:
    """One client's connection: its number, its writer, and the requests that have no reply yet."""

    number: int
    writer: asyncio.StreamWriter
    asked: deque[Frame] = field(default_factory=lambda: deque(maxlen=ASKED_MAX))

    @property
    def is_tcp(self) -> bool:
        """Whether it can be reset and closed: a serial line cannot."""
        return self.writer.get_extra_info("socket") is not None

    def request_of(self, reply: Frame) -> Frame | None:
        """The request that `reply` answers; those before it got none."""
        while self.asked:
            request = self.asked.popleft()
            if (request.transaction, request.unit) == (reply.transaction, reply.unit):
                return request
        return None


class FaultProxy:
    """Listens on `address` and passes connections to `upstream`, spoiling them by `faults` (the first that applies).

    `faults` may be replaced at any time; `connections` counts those accepted so far, `struck` each fault done. Faults
    that the framing cannot have never strike. Use as an async context manager.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        faults: Sequence[Fault] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        framing: Framing = Framing.MBAP,
    ) -> None:
        self.upstream = upstream
        self.faults: Sequence[Fault] = faults
        self.address = (host, port)
        self.connections = 0
        self.struck: Counter[FaultKind] = Counter()
        self._framing = framing
        self._kinds = kinds_of(framing)
        self._draw = Draw(seed).split("fault proxy")
        self._remembered: dict[tuple[int, bytes], bytes] = {}
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

    @property
    def place(self) -> str:
        """The address as text."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def is_listening(self) -> bool:
        """Whether the port is open."""
        return self._server is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _now_ms(self) -> float:
        return (asyncio.get_running_loop().time() - self._started_s) * 1000

    def _fault_of_reply(self, number: int, unit: int | None) -> Fault | None:
        for fault in self.faults:
            if fault.kind not in self._kinds or not fault.applies(number, self._now_ms(), unit):
                continue
            if self._draw.chance(fault.share):
                self.struck[fault.kind] += 1
                return fault
        return None

    def _does(self, kind: FaultKind, number: int, unit: int | None) -> bool:
        """Whether a fault of requests is in force."""
        return any(
            fault.kind is kind and fault.applies(number, self._now_ms(), unit) for fault in self.faults
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it; when the server is not there, it ends at once."""
        try:
            await self._bridge(reader, writer)
        finally:
            writer.close()

    async def _bridge(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self.connections, writer)
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            return
        requests = self._spawn(self._pass_requests(connection, reader, up_writer))
        replies = self._spawn(self._pass_replies(connection, up_reader))
        try:
            await asyncio.wait({requests, replies}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            requests.cancel()
            replies.cancel()
            up_writer.close()

    async def _pass_requests(
        self, connection: _Connection, reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                data = await read_frame(reader, self._framing, is_request=True)
                if not self._intercepts(connection, data):
                    up_writer.write(data)
                    await up_writer.drain()

    def _intercepts(self, connection: _Connection, data: bytes) -> bool:
        """Whether a request goes no further: swallowed, or answered from memory."""
        request = None if self._framing is Framing.RAW else Frame.read(self._framing, data)
        unit = None if request is None else request.unit
        if self._does(FaultKind.SWALLOW, connection.number, unit):
            self.struck[FaultKind.SWALLOW] += 1
            return True
        if request is None:
            return False
        known = self._remembered.get((request.unit, request.pdu))
        if known is not None and self._does(FaultKind.CACHED, connection.number, unit):
            self.struck[FaultKind.CACHED] += 1
            connection.writer.write(Frame(request.transaction, request.unit, known).sealed(self._framing))
            return True
        connection.asked.append(request)
        return False

    async def _pass_replies(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            is_open = True
            while is_open:
                frame = await read_frame(reader, self._framing)
                unit = self._remember(connection, frame)
                fault = self._fault_of_reply(connection.number, unit)
                is_open = await self._deliver(fault, frame, connection)

    def _remember(self, connection: _Connection, frame: bytes) -> int | None:
        """Keep what was answered to what, as a gateway box's cache does; the unit that answers."""
        if self._framing is Framing.RAW:
            return None
        reply = Frame.read(self._framing, frame)
        request = connection.request_of(reply)
        if request is not None and not reply.is_exception:
            self._remembered[request.unit, request.pdu] = reply.pdu
        return reply.unit

    async def _deliver(self, fault: Fault | None, frame: bytes, connection: _Connection) -> bool:
        """Send one reply, spoilt or not; False when the connection is over."""
        writer = connection.writer
        match fault.kind if fault else None:
            case FaultKind.RESET | FaultKind.RESET_MID_FRAME | FaultKind.CLOSE as kind:
                if kind is FaultKind.RESET_MID_FRAME:
                    writer.write(frame[: len(frame) // 2])
                    await writer.drain()
                if connection.is_tcp and kind is not FaultKind.CLOSE:
                    reset(writer)
                return not connection.is_tcp
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
            case None | FaultKind.CACHED:
                writer.write(frame)
            case _:
                assert fault is not None
                writer.write(spoil(fault, self._framing, frame, self._draw))
        await writer.drain()
        return True

    @staticmethod
    async def _write_later(delay_ms: int, frame: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_ms / 1000)
        if not writer.is_closing():
            writer.write(frame)


class SerialFaultProxy(FaultProxy):
    """As `FaultProxy`, but in front is a pseudo-terminal: the client opens a serial port, at `path` when given.

    A line has one connection for ever; when the server behind goes away, the line falls silent until it is back.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        faults: Sequence[Fault] = (),
        *,
        path: Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(upstream, faults, seed=seed, framing=Framing.RTU)
        self._port = PseudoTerminal(self._serve, path)

    async def start(self) -> tuple[str, int]:
        """Make the port. The time of faults starts to run. Raises OSError when the path is taken."""
        await self._port.open()
        self._started_s = asyncio.get_running_loop().time()
        return self.address

    async def stop(self) -> None:
        """Pull the adapter out."""
        await self._port.close()
        await super().stop()

    @property
    def place(self) -> str:
        """The path to open."""
        return str(self._port.path)

    @property
    def is_listening(self) -> bool:
        """Whether the port is there."""
        return self._port.is_open

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._bridge(reader, writer)
            await asyncio.sleep(REDIAL_S)
