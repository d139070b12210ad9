"""How requests and answers stand on the wire, without any I/O: Modbus/TCP's header (MBAP), and RTU.

    begin(request)   the bytes to send; from now on its answer is awaited
    feed(data)       the answer's body (unit id and PDU), or what is to be done: `Fed`
    finish()         RTU: the line has been silent, so what came is a frame: its body, or `Fed.BROKEN`
    give_up()        nobody waits any more; True when the connection cannot be used further

**MBAP** (Modbus messaging on TCP/IP V1.0b, 3.1): a header of 7 bytes (transaction id, protocol id 0, length, unit) and a PDU of
up to 253. Each request has a transaction id of its own, so a late or doubled answer to something given up is told
apart and dropped. Protocol id or length out of range: where frames begin is lost, and the connection with it.

**RTU** (Modbus over Serial Line 1.02, 2.5.1): unit, PDU, CRC. Nothing in an answer says which request it belongs to, and
nothing but silence says where it ends. How long the awaited answer must be follows from the request (an exception is 5
bytes); once that much has come, or what came cannot be it, the frame ends with the next silence. Bytes beyond it (an
answer doubled, two devices answering, noise) spoil it as a wrong CRC does.
"""

from __future__ import annotations

import struct
from enum import Enum, auto
from typing import Final, Protocol

from pymodbus.framer.rtu import FramerRTU

from edge_agent.adapters.fieldbus_request import EXCEPTION_FLAG, Request, request_pdu
from edge_agent.domain.plan import ReadBlock

_HEADER: Final = struct.Struct(">HHH")
_LENGTH_MIN: Final = 3
_LENGTH_MAX: Final = 254
_TRANSACTION_MASK: Final = 0xFFFF

_CRC_BYTES: Final = 2
_RTU_FRAME_MIN: Final = 4
_RTU_FRAME_MAX: Final = 256
"""The longest legal RTU frame (Modbus over Serial Line 1.02, 2.5.1); beyond it nothing is kept: it is noise."""

_RTU_EXCEPTION_BYTES: Final = 5


class Fed(Enum):
    """What fed bytes call for when they are no answer: more of them, silence after them, or a new connection."""

    MORE = auto()
    SILENCE = auto()
    BROKEN = auto()


class Framing(Protocol):
    """One way to frame; holds what one connection has received so far."""

    def encode(self, unit: int, block: ReadBlock) -> bytes:
        """The request that reads `block` of `unit`, but for what changes from one time to the next."""
        ...

    def begin(self, request: Request) -> bytes:
        """See the module."""
        ...

    def feed(self, data: bytes) -> bytes | Fed:
        """See the module."""
        ...

    def finish(self) -> bytes | Fed:
        """See the module."""
        ...

    def give_up(self) -> bool:
        """See the module."""
        ...

    @property
    def is_mid_frame(self) -> bool:
        """Whether part of a frame has come."""
        ...

    def reset(self) -> None:
        """A new connection."""
        ...


class MbapFraming:
    """Modbus/TCP, with TLS or without."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transaction = 0

    def encode(self, unit: int, block: ReadBlock) -> bytes:
        """Protocol id, length, unit and PDU."""
        pdu = request_pdu(block)
        return struct.pack(">HHB", 0, 1 + len(pdu), unit) + pdu

    def begin(self, request: Request) -> bytes:
        """The request under a new transaction id."""
        self._transaction = (self._transaction + 1) & _TRANSACTION_MASK
        return self._transaction.to_bytes(2, "big") + request.frame

    def feed(self, data: bytes) -> bytes | Fed:
        """The body of the awaited answer; others are dropped. A frame that comes whole is not copied to the buffer."""
        if not self._buffer and len(data) > _HEADER.size:
            transaction, protocol, length = _HEADER.unpack_from(data)
            if protocol == 0 and len(data) == _HEADER.size + length and _LENGTH_MIN <= length <= _LENGTH_MAX:
                return data[_HEADER.size :] if transaction == self._transaction else Fed.MORE
        self._buffer += data
        return self._cut()

    def finish(self) -> bytes | Fed:
        """Never asked for: the header says where a frame ends."""
        return Fed.BROKEN

    def give_up(self) -> bool:
        """What follows half a frame cannot be told apart from it."""
        return self.is_mid_frame

    @property
    def is_mid_frame(self) -> bool:
        """Whether part of a frame has come."""
        return bool(self._buffer)

    def reset(self) -> None:
        """Forget what the last connection left; transaction ids go on."""
        self._buffer.clear()

    def _cut(self) -> bytes | Fed:
        buffer = self._buffer
        found: bytes | Fed = Fed.MORE
        while len(buffer) >= _HEADER.size:
            transaction, protocol, length = _HEADER.unpack_from(buffer)
            if protocol != 0 or not _LENGTH_MIN <= length <= _LENGTH_MAX:
                return Fed.BROKEN
            end = _HEADER.size + length
            if len(buffer) < end:
                break
            if (
                transaction == self._transaction and found is Fed.MORE
            ):  # one answer, the first, as when they come apart
                found = bytes(buffer[_HEADER.size : end])
            del buffer[:end]
        return found


class RtuFraming:
    """RTU, on a serial line or over TCP to a transparent serial server."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._request: Request | None = None

    def encode(self, unit: int, block: ReadBlock) -> bytes:
        """Unit, PDU and CRC."""
        frame = bytes([unit]) + request_pdu(block)
        return frame + crc(frame)

    def begin(self, request: Request) -> bytes:
        """The request; whatever came before belongs to no one."""
        self._buffer.clear()
        self._request = request
        return request.frame

    def feed(self, data: bytes) -> bytes | Fed:
        """Whether enough has come to be the answer, or what came cannot be it."""
        buffer = self._buffer
        buffer += data
        del buffer[_RTU_FRAME_MAX + 1 :]
        return Fed.SILENCE if self._request is None or self._is_over(self._request) else Fed.MORE

    def finish(self) -> bytes | Fed:
        """The body of a frame with a good CRC."""
        frame = bytes(self._buffer)
        self._buffer.clear()
        is_good = (
            _RTU_FRAME_MIN <= len(frame) <= _RTU_FRAME_MAX and crc(frame[:-_CRC_BYTES]) == frame[-_CRC_BYTES:]
        )
        return frame[:-_CRC_BYTES] if is_good else Fed.BROKEN

    def give_up(self) -> bool:
        """The connection can be used further once it has been silent; that is the link's to see to."""
        self.reset()
        return False

    @property
    def is_mid_frame(self) -> bool:
        """Whether part of a frame has come."""
        return bool(self._buffer)

    def reset(self) -> None:
        """Forget what came, and that anything is awaited."""
        self._buffer.clear()
        self._request = None

    def _is_over(self, request: Request) -> bool:
        frame, head = self._buffer, request.head
        if frame[0] != head[0]:
            return True
        if len(frame) < 2:
            return False
        if frame[1] == request.function | EXCEPTION_FLAG:
            return len(frame) >= _RTU_EXCEPTION_BYTES
        if frame[1] != request.function or frame[2:3] not in (b"", head[2:3]):
            return True
        return len(frame) >= request.body_bytes + _CRC_BYTES


def crc(frame: bytes) -> bytes:
    """The CRC that ends an RTU frame, as sent: low byte first (Modbus over Serial Line 1.02, 2.5.1.2)."""
    return FramerRTU.compute_CRC(frame).to_bytes(_CRC_BYTES, "big")
