"""One Modbus/TCP connection behind the `Fieldbus` port: read requests, and answers that are believed only if exact.

Theory of operation. A request is 12 bytes, an answer a 7-byte MBAP header and a PDU of up to 253 (Modbus messaging on
TCP/IP V1.0b, 3.1; Modbus application protocol V1.1b3, 6.1-6.4). One request is in flight; it has a transaction id of
its own. What an answer must be, in the order in which it is looked at:

    protocol id 0, length 3..254        else `bad_frame`: where frames begin is lost, so the connection is closed
    the transaction id in flight        else dropped: a late or doubled answer to something given up
    the unit asked                      else `wrong_unit`
    the function asked                  else `wrong_function`, or its exception: `exception:N`
    byte count and length exact         else `short`

A timeout leaves the connection up (the id tells a late answer apart) unless half a frame has come, or `SILENT_MAX`
came in a row without any answer: then nobody may be at the other end any more (a controller that lost power sends no
goodbye), and only a new connection finds out. A close by the peer is noticed at once, not at the timeout.
Reconnecting backs off; reads meanwhile fail with `link`. There is no function code here but 1 to 4.

Request PDUs are pymodbus's. The transaction around them is our own, because the vendor's client accepts other function
codes and shorter answers than asked for, waits out its timeout after a close, and costs four times the processor time
at 1000 devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Final, cast

from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome

_HEADER: Final = struct.Struct(">HHHB")
_LENGTH_MIN: Final = 3
_LENGTH_MAX: Final = 254
_EXCEPTION_FLAG: Final = 0x80
_EXCEPTION_PDU_BYTES: Final = 2

RECONNECT_FIRST_S: Final = 0.5
"""First pause after a connection failed: a device that restarts is back within seconds …"""

RECONNECT_MAX_S: Final = 5.0
"""… doubling up to this until it answers: one that is away costs one attempt in five seconds, and is seen soon when it returns."""

SILENT_MAX: Final = 3
"""Timeouts in a row, over all units of the link, after which the connection is made anew."""

_REQUESTS: Final[dict[Table, type[ModbusPDU]]] = {
    Table.COIL: ReadCoilsRequest,
    Table.DISCRETE_INPUT: ReadDiscreteInputsRequest,
    Table.HOLDING_REGISTER: ReadHoldingRegistersRequest,
    Table.INPUT_REGISTER: ReadInputRegistersRequest,
}

CONNECT_TIMEOUT_S: Final = 3.0
"""A TCP connect on a plant network answers in milliseconds; a SYN lost once is sent again after one second."""


class _Connection(asyncio.Protocol):
    """Frames in, at most one answer awaited. Used once."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._transaction = 0
        self._answer: asyncio.Future[bytes | None] | None = None
        self.has_answered = False
        self.silent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whatever it was, the peer is gone
        self._transport = None
        self._settle(None)
        if not self.lost.done():
            self.lost.set_result(None)

    @property
    def is_up(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_mid_frame(self) -> bool:
        """Whether part of a frame has come: what follows cannot be told apart from it."""
        return bool(self._buffer)

    def send(self, unit: int, block: ReadBlock) -> asyncio.Future[bytes | None]:
        """Send one request; the answer's unit and PDU, or None when the connection or its framing is lost."""
        assert self._transport is not None
        self._transaction = (self._transaction + 1) & 0xFFFF
        self._answer = asyncio.get_running_loop().create_future()
        pdu = request_pdu(block)
        self._transport.write(_HEADER.pack(self._transaction, 0, 1 + len(pdu), unit) + pdu)
        return self._answer

    def forget(self) -> None:
        """Nobody waits any more; an answer that comes now is dropped by its transaction id."""
        self._answer = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            transaction, protocol, length, _ = _HEADER.unpack_from(self._buffer)
            if protocol != 0 or not _LENGTH_MIN <= length <= _LENGTH_MAX:
                self.abort()
                return
            end = _HEADER.size - 1 + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size - 1 : end])
            del self._buffer[:end]
            if transaction == self._transaction:
                self.has_answered = True
                self.silent = 0
                self._settle(body)

    def abort(self) -> None:
        """Close without goodbye."""
        if self._transport is not None:
            self._transport.abort()
        self._settle(None)

    def _settle(self, body: bytes | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(body)
        self._answer = None


class MbapLink:
    """A Modbus/TCP endpoint that is connected to again and again. `read` is called by one task at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._first_try = asyncio.Event()
        self._requests: Counter[int] = Counter()

    @property
    def requests(self) -> Mapping[int, int]:
        """Requests sent since the start, by function code."""
        return self._requests

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        """Read one block; every failure is an outcome (see the module)."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected(), name=f"link {self._host}:{self._port}")
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._first_try.wait()
                connection = self._connection
                if connection is None or not connection.is_up:
                    return BlockFailed("link")
                self._requests[block.table.function_code] += 1
                body = await connection.send(unit, block)
        except TimeoutError:
            return self._give_up()
        if body is None:
            return BlockFailed("link" if connection.lost.done() else "bad_frame")
        return judge(unit, block, body)

    async def close(self) -> None:
        """Close the connection and stop reconnecting."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _give_up(self) -> BlockFailed:
        connection = self._connection
        if connection is None:
            return BlockFailed("link")
        connection.forget()
        connection.silent += 1
        is_mid_frame = connection.is_mid_frame
        if is_mid_frame or connection.silent >= SILENT_MAX:
            connection.abort()
        return BlockFailed("bad_frame" if is_mid_frame else "timeout")

    async def _keep_connected(self) -> None:
        pause_s = RECONNECT_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    _, self._connection = await loop.create_connection(_Connection, self._host, self._port)
            except (OSError, TimeoutError):
                self._first_try.set()
            else:
                self._first_try.set()
                await self._connection.lost
                if self._connection.has_answered:
                    pause_s = RECONNECT_FIRST_S
                self._connection = None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_MAX_S)


def request_pdu(block: ReadBlock) -> bytes:
    """Function code and data of the request that reads `block` (Modbus application protocol V1.1b3, 6.1-6.4)."""
    request = _REQUESTS[block.table](address=block.start, count=block.count)
    return bytes([block.table.function_code]) + request.encode()


def judge(unit: int, block: ReadBlock, body: bytes) -> BlockOutcome:
    """Whether `body` (unit id and PDU of an answer) is exactly what reading `block` of `unit` must give."""
    if body[0] != unit:
        return BlockFailed("wrong_unit")
    function, pdu = body[1], body[1:]
    expected = block.table.function_code
    if function == expected | _EXCEPTION_FLAG and len(pdu) == _EXCEPTION_PDU_BYTES:
        return BlockFailed(f"exception:{pdu[1]}")
    if function != expected:
        return BlockFailed("wrong_function")
    if pdu[1] != block.length_bytes or len(pdu) != 2 + block.length_bytes:
        return BlockFailed("short")
    return BlockOk(pdu[2:])
