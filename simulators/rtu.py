"""Modbus RTU as a slave sees it: frames, their CRC, and what a register bank answers to a request. No I/O.

A frame is the unit id, a PDU and two bytes of CRC, low byte first (Modbus over Serial Line 1.02, 2.5.1). It carries no
length: a request's follows from its function, an answer's from its function and byte count. The CRC is computed from a
table made here, and shares nothing with the agent's, so that a mistake in one does not hide in the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from simulators.register_bank import BIT_TABLES, READ_FUNCTIONS, WORD_BITS, RegisterBank, Table

CRC_BYTES: Final = 2
READ_REQUEST_BYTES: Final = 8  # unit, function, address, count, CRC
EXCEPTION_FLAG: Final = 0x80
EXCEPTION_BYTES: Final = 5  # unit, function with the flag, code, CRC
ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
BITS_MAX: Final = 2000  # of one read (Modbus application protocol V1.1b3, 6.1 and 6.2)
WORDS_MAX: Final = 125  # of one read (6.3 and 6.4)
WRITE_MANY: Final = frozenset({15, 16})  # their requests carry a byte count at place 6

_POLYNOMIAL: Final = 0xA001  # x^16 + x^15 + x^2 + 1, reflected (Modbus over Serial Line 1.02, 6.2.2)


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_REMAINDERS: Final = tuple(_remainder(byte) for byte in range(256))


def crc(data: bytes) -> bytes:
    """The two CRC bytes of `data`, in the order in which they go over the line."""
    register = 0xFFFF
    for byte in data:
        register = register >> 8 ^ _REMAINDERS[(register ^ byte) & 0xFF]
    return register.to_bytes(2, "little")


def seal(body: bytes) -> bytes:
    """The frame of unit id and PDU: with its CRC."""
    return body + crc(body)


def is_whole(frame: bytes) -> bool:
    """Whether the CRC is right."""
    return len(frame) > CRC_BYTES and crc(frame[:-CRC_BYTES]) == frame[-CRC_BYTES:]


def request_bytes(start: bytes) -> int | None:
    """How long the request that begins so is, None while that cannot be told."""
    if len(start) < 2:
        return None
    if start[1] not in WRITE_MANY:
        return READ_REQUEST_BYTES
    return None if len(start) < 7 else 9 + start[6]


def reply_bytes(start: bytes) -> int | None:
    """How long the reply that begins so is, None while that cannot be told."""
    if len(start) < 3:
        return None
    if start[1] & EXCEPTION_FLAG:
        return EXCEPTION_BYTES
    return 5 + start[2] if start[1] in READ_FUNCTIONS else READ_REQUEST_BYTES


@dataclass(frozen=True, slots=True)
class Answer:
    """What a slave does with a request: an answer PDU, or null for silence; and what it holds."""

    pdu: bytes | None
    values: list[int] | None = None
    exception: int | None = None


SILENCE: Final = Answer(None)


def answer(bank: RegisterBank, unit: int, pdu: bytes) -> Answer:
    """What `bank` answers to the request PDU, taken in one piece."""
    if bank.is_silent(unit):
        return SILENCE
    function = pdu[0]
    table = READ_FUNCTIONS.get(function)
    if table is None or len(pdu) != 5:
        return _refused(function, ILLEGAL_FUNCTION)
    address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if (code := _objection(bank, unit, table, address, count)) is not None:
        return _refused(function, code)
    if table in BIT_TABLES:
        bits = _bits(bank, unit, table, address, count)
        packed = sum(bit << place for place, bit in enumerate(bits))
        data = packed.to_bytes((count + 7) // 8, "little")
        return Answer(bytes([function, len(data)]) + data, bits)
    words = list(bank.word_span(unit, table, address, count))
    data = b"".join(word.to_bytes(2, "big") for word in words)
    return Answer(bytes([function, len(data)]) + data, words)


def _objection(bank: RegisterBank, unit: int, table: Table, address: int, count: int) -> int | None:
    """The exception code of a read that cannot be, in the order of the protocol's state diagrams (6.1 to 6.4)."""
    is_bits = table in BIT_TABLES
    if not 1 <= count <= (BITS_MAX if is_bits else WORDS_MAX):
        return ILLEGAL_VALUE
    if address + count > (bank.bits if is_bits else bank.words):
        return ILLEGAL_ADDRESS
    return bank.refusal_of(unit, table, address, count)


def _bits(bank: RegisterBank, unit: int, table: Table, address: int, count: int) -> list[int]:
    first = address // WORD_BITS
    words = bank.word_span(unit, table, first, (address + count - 1) // WORD_BITS - first + 1)
    return [words[n // WORD_BITS - first] >> n % WORD_BITS & 1 for n in range(address, address + count)]


def _refused(function: int, code: int) -> Answer:
    return Answer(bytes([function | EXCEPTION_FLAG, code]), exception=code)
