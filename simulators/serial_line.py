"""A register bank behind RTU framing: on a serial line, or over TCP.

The line is a pseudo-terminal; over TCP it is what a transparent serial server passes on ("RTU over TCP").

All units of the bank hang on the one line and answer one request at a time, in order, as slaves on RS-485 do. An answer
takes its time: the request and the reply cross the wire at `baud`, 11 bits a character (Modbus over Serial Line 1.02,
2.5.1), and between them a slave thinks for `turnaround_ms`. A request with a wrong CRC gets silence and ends at the next
pause of the line, which is how a slave finds the beginning of the next. Writes are refused with exception 01 and counted.

Faults of the line belong to `simulators.fault_proxy`, which cuts RTU frames too.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from simulators.pseudo_terminal import PseudoTerminal
from simulators.register_bank import READ_FUNCTIONS, RegisterBank
from simulators.rtu import CRC_BYTES, Answer, answer, is_whole, request_bytes, seal
from simulators.served import Served, ServedLog

BITS_PER_CHARACTER: Final = 11  # start, eight data bits, parity or a second stop, stop
CHUNK_BYTES: Final = 4096
PAUSE_S: Final = (
    0.05  # bytes further apart belong to two frames: far above 3.5 characters, for loops run late
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a line is. `baud` 0 crosses it in no time, as a buffer does."""

    baud: int = 19_200
    turnaround_ms: float = 3.0  # a PLC answers from its communication task, 2 to 20 ms after the request

    def delay_s(self, characters: int) -> float:
        """From a request to the last character of its reply, both together this long."""
        crossing_s = characters * BITS_PER_CHARACTER / self.baud if self.baud else 0.0
        return crossing_s + self.turnaround_ms / 1000


USUAL: Final = Pace()
AT_ONCE: Final = Pace(baud=0, turnaround_ms=0.0)


class RtuSlaves:
    """The units of a bank on one line: `serve` answers what comes over a stream."""

    def __init__(self, bank: RegisterBank, *, pace: Pace = AT_ONCE, log: ServedLog | None = None) -> None:
        self.bank = bank
        self.pace = pace
        self.writes_refused = 0
        self.frames_refused = 0
        self._log = log

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the stream ends."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                request = await self._next_request(reader)
                found = self._answer(request)
                if found.pdu is None:
                    continue
                reply = seal(request[:1] + found.pdu)
                await asyncio.sleep(self.pace.delay_s(len(request) + len(reply)))
                writer.write(reply)
                await writer.drain()

    async def _next_request(self, reader: asyncio.StreamReader) -> bytes:
        """The next request with a right CRC."""
        while True:
            heard = await reader.readexactly(1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    while (length := request_bytes(heard)) is None or len(heard) < length:
                        heard += await reader.readexactly(1)
            if is_whole(heard):
                return heard
            self.frames_refused += 1
            await self._await_pause(reader)

    @staticmethod
    async def _await_pause(reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(PAUSE_S):
                    if not await reader.read(CHUNK_BYTES):
                        return

    def _answer(self, request: bytes) -> Answer:
        unit, pdu = request[0], request[1:-CRC_BYTES]
        found = answer(self.bank, unit, pdu)
        if found.pdu is not None and pdu[0] not in READ_FUNCTIONS:
            self.writes_refused += 1
        if self._log is not None:
            self._log(
                Served(
                    mono_ms=asyncio.get_running_loop().time() * 1000,
                    unit=unit,
                    fc=pdu[0],
                    address=int.from_bytes(pdu[1:3], "big"),
                    count=int.from_bytes(pdu[3:5], "big"),
                    values=found.values,
                    exception=found.exception,
                )
            )
        return found


class SerialLine:
    """Slaves on a pseudo-terminal. Use as an async context manager, or `start` and `stop`; `place` is the port."""

    def __init__(self, slaves: RtuSlaves, path: Path | None = None) -> None:
        self.slaves = slaves
        self._port = PseudoTerminal(slaves.serve, path)

    async def start(self) -> Path:
        """Make the port; returns its path. Raises OSError when it cannot be made."""
        return await self._port.open()

    async def stop(self) -> None:
        """Pull the adapter out."""
        await self._port.close()

    @property
    def place(self) -> str:
        """The path to open."""
        return str(self._port.path)

    @property
    def is_listening(self) -> bool:
        """Whether the port is there."""
        return self._port.is_open

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class RtuServer:
    """Slaves behind a transparent serial server: RTU frames over TCP. As `SerialLine`, but with an `address`."""

    def __init__(self, slaves: RtuSlaves, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.slaves = slaves
        self.address = (host, port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> tuple[str, int]:
        """Listen; returns the address. Raises OSError when the port cannot be had."""
        assert self._server is None, "already listening"
        self._server = await asyncio.start_server(self._accept, *self.address)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self.address

    async def stop(self) -> None:
        """Close every connection and the port."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def place(self) -> str:
        """The address as text."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def is_listening(self) -> bool:
        """Whether the port is open."""
        return self._server is not None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.slaves.serve(reader, writer)
        finally:
            writer.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
