"""A broker's bytes on paper: a socket that gives them piece by piece, and what a wire makes of them."""

from __future__ import annotations

from edge_agent.broker.wire import Packet, Wire

PINGRESP = b"\xd0\x00"


class Pieces:
    """A socket that gives what it is given, piece by piece."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.sent = bytearray()

    def recv(self, buffer_size: int) -> bytes:
        if not self.pieces:
            raise BlockingIOError
        return self.pieces.pop(0)

    def send(self, buffer: bytes | bytearray) -> int:
        self.sent += buffer
        return len(buffer)

    def close(self) -> None:
        self.pieces = [b""]

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        pass


def varint(value: int) -> bytes:
    """A variable byte integer (MQTT 5.0, 1.5.5)."""
    digits = bytearray()
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(digits)


def read_all(wire: Wire, kind: int) -> list[Packet | bytes]:
    """Everything that was read, in order: packets of that kind, and what paho is given in between."""
    wire.fill()
    found: list[Packet | bytes] = []
    while True:
        if (packet := wire.next_packet(kind)) is not None:
            found.append(packet)
        elif wire.has_for_paho:
            found.append(b"".join(iter(lambda: wire.recv(3) if wire.has_for_paho else b"", b"")))
        else:
            return found
