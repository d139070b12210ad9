"""What a plant network does to Modbus replies, as data: kinds of fault, when they strike, and the bytes they make.

Pure. `simulators.fault_proxy` strikes with them on real connections, the count of wrong values (`python -m
tests.faults`) on millions of replies in virtual time. Every draw comes from a seed.

Faults keep to what a protocol can tell: a spoilt RTU frame never has a right CRC by accident, since whatever has one is
the reply as far as anybody can know; and data bits of a Modbus/TCP frame are left alone, since nothing guards them but
TCP's own checksum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from simulators.draw import Draw
from simulators.register_bank import READ_FUNCTIONS
from simulators.rtu import EXCEPTION_FLAG, is_whole, seal

JUNK_BYTES: Final = 300  # longer than the longest legal frame (260)
EXCEPTION_CODES: Final = (
    1,
    2,
    3,
    4,
    5,
    6,
    0x0A,
    0x0B,
)  # Modbus application protocol V1.1b3, 7, but for memory parity
_WORD_FUNCTIONS: Final = frozenset({3, 4})


class Framing(StrEnum):
    """How bytes are cut into replies."""

    MBAP = "mbap"  # Modbus/TCP and Modbus/TCP Security: a header with transaction id and length
    RTU = "rtu"  # a serial line, or RTU over TCP: unit, PDU, CRC
    RAW = "raw"  # any protocol: whatever came at once


class FaultKind(StrEnum):
    """What goes wrong with a reply, or with the connection when its next bytes come."""

    LATENCY = "latency"  # every reply delay_ms later, order kept
    LATE = "late"  # this reply delay_ms later, those after it pass it by
    DRIBBLE = "dribble"  # byte by byte, delay_ms apart
    SWALLOW = "swallow"  # half-open: requests and replies vanish, the connection stays
    RESET = "reset"  # RST instead of the reply; on a serial line just silence
    RESET_MID_FRAME = "reset-mid-frame"  # half the reply, then RST or silence
    CLOSE = "close"  # FIN instead of the reply
    DROP_REPLY = "drop-reply"
    DUPLICATE = "duplicate"
    TWO_ANSWERS = (
        "two-answers"  # two slaves with one unit id: a second reply with other data at the first's heels
    )
    JUNK = "junk"  # 300 bytes of noise instead of the reply
    WRONG_TRANSACTION = "wrong-transaction"
    WRONG_UNIT = "wrong-unit"
    WRONG_FUNCTION = "wrong-function"
    WRONG_LENGTH = "wrong-length"  # the header, or the byte count of RTU, promises one byte more than comes
    SHORT = "short"  # a well-formed reply with one register (or 8 bits) too few
    EXCEPTION = "exception"  # an exception reply, of `code` or a drawn one
    CRC_ERROR = "crc-error"  # one bit of an RTU frame flipped
    COLLISION = "collision"  # two slaves talk at once: both frames garbled into one
    CACHED = (
        "cached"  # a gateway box answers from its memory, whatever the slave says now, or if it says nothing
    )


_MBAP_ONLY: Final = frozenset({FaultKind.WRONG_TRANSACTION})
_RTU_ONLY: Final = frozenset({FaultKind.CRC_ERROR, FaultKind.COLLISION})
_ANY_BYTES: Final = frozenset(
    {
        FaultKind.LATENCY,
        FaultKind.LATE,
        FaultKind.DRIBBLE,
        FaultKind.SWALLOW,
        FaultKind.RESET,
        FaultKind.RESET_MID_FRAME,
        FaultKind.CLOSE,
        FaultKind.DROP_REPLY,
        FaultKind.DUPLICATE,
        FaultKind.JUNK,
    }
)


def kinds_of(framing: Framing) -> frozenset[FaultKind]:
    """The faults that this framing can have."""
    match framing:
        case Framing.RAW:
            return _ANY_BYTES
        case Framing.MBAP:
            return frozenset(FaultKind) - _RTU_ONLY
        case Framing.RTU:
            return frozenset(FaultKind) - _MBAP_ONLY


@dataclass(frozen=True, slots=True)
class Fault:
    """When and where a kind of fault strikes. Null `connection`, `unit` or `until_ms`: all, for ever.

    `code` is the exception's (null: drawn for each).
    """

    kind: FaultKind
    delay_ms: int = 0
    connection: int | None = None
    from_ms: int = 0
    until_ms: int | None = None
    share: float = 1.0
    unit: int | None = None
    code: int | None = None

    def applies(self, connection: int, now_ms: float, unit: int | None = None) -> bool:
        """Whether this connection and unit are meant, at this time."""
        in_time = self.from_ms <= now_ms and (self.until_ms is None or now_ms < self.until_ms)
        return in_time and self.connection in {None, connection} and self.unit in {None, unit}


@dataclass(frozen=True, slots=True)
class Frame:
    """A request or a reply, apart from its framing. `transaction` is the two bytes of MBAP, empty in RTU."""

    transaction: bytes
    unit: int
    pdu: bytes

    @classmethod
    def read(cls, framing: Framing, frame: bytes) -> Frame:
        """Take a whole frame apart."""
        if framing is Framing.MBAP:
            return cls(frame[:2], frame[6], frame[7:])
        return cls(b"", frame[0], frame[1:-2])

    def sealed(self, framing: Framing, *, promised: int = 0) -> bytes:
        """The bytes on the wire; an MBAP header promises `promised` bytes more than come."""
        if framing is Framing.MBAP:
            length = 1 + len(self.pdu) + promised
            return self.transaction + b"\0\0" + length.to_bytes(2, "big") + bytes([self.unit]) + self.pdu
        return seal(bytes([self.unit]) + self.pdu)

    @property
    def is_exception(self) -> bool:
        """Whether it refuses."""
        return bool(self.pdu[0] & EXCEPTION_FLAG)


def spoil(fault: Fault, framing: Framing, frame: bytes, draw: Draw) -> bytes:
    """The bytes sent instead of the reply `frame`."""
    if fault.kind is FaultKind.JUNK:
        return bytes(draw.between(0, 255) for _ in range(JUNK_BYTES))
    if framing is Framing.RAW:
        return frame + frame if fault.kind is FaultKind.DUPLICATE else frame
    reply = Frame.read(framing, frame)
    match fault.kind:
        case FaultKind.DUPLICATE:
            return frame + frame
        case FaultKind.TWO_ANSWERS:
            return frame + _of_another_slave(reply, draw).sealed(framing)
        case FaultKind.COLLISION:
            return _garbled(frame, _of_another_slave(reply, draw).sealed(framing))
        case FaultKind.CRC_ERROR:
            return _flipped(frame, draw.between(0, 8 * len(frame) - 1))
        case FaultKind.WRONG_LENGTH:
            return _promising_more(reply, framing)
        case FaultKind.WRONG_TRANSACTION:
            return bytes([frame[0] ^ 0x55]) + frame[1:]
        case kind:
            return _differing(kind, reply, fault, draw).sealed(framing)


def _differing(kind: FaultKind, reply: Frame, fault: Fault, draw: Draw) -> Frame:
    pdu = reply.pdu
    match kind:
        case FaultKind.WRONG_UNIT:
            return replace(reply, unit=reply.unit ^ 0x55)
        case FaultKind.WRONG_FUNCTION:
            # 3 and 4, 1 and 2 become other function codes, never an exception's
            return replace(reply, pdu=bytes([pdu[0] ^ 0x07]) + pdu[1:])
        case FaultKind.EXCEPTION:
            code = draw.choice(EXCEPTION_CODES) if fault.code is None else fault.code
            return replace(reply, pdu=bytes([pdu[0] | EXCEPTION_FLAG, code]))
        case FaultKind.SHORT if not reply.is_exception and pdu[1] > 1:
            cut = 2 if pdu[0] in _WORD_FUNCTIONS else 1
            return replace(reply, pdu=bytes([pdu[0], pdu[1] - cut]) + pdu[2:-cut])
        case _:
            return reply


def _promising_more(reply: Frame, framing: Framing) -> bytes:
    if framing is Framing.MBAP:
        return reply.sealed(framing, promised=1)
    pdu = reply.pdu
    return replace(reply, pdu=bytes([pdu[0], pdu[1] + 1]) + pdu[2:]).sealed(framing)


def _of_another_slave(reply: Frame, draw: Draw) -> Frame:
    """The same reply with other data: what a second slave with the same unit id would say."""
    if reply.pdu[0] not in READ_FUNCTIONS:
        return reply
    other = bytes(byte ^ draw.between(1, 255) for byte in reply.pdu[2:])
    return replace(reply, pdu=reply.pdu[:2] + other)


def _garbled(first: bytes, second: bytes) -> bytes:
    """Both at once on one pair of wires: where they differ, the driver of a zero wins."""
    mixed = bytes(one & other for one, other in zip(first, second, strict=True))
    return _flipped(mixed, 0) if is_whole(mixed) else mixed


def _flipped(frame: bytes, bit: int) -> bytes:
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
