"""A connection that the event loop reads in large pieces, with what agents published taken out before paho sees it.

paho reads a packet with three system calls, spends some thirty microseconds on a PUBLISH and writes each PUBACK with a
call of its own; and beside a busy writer thread every system call may wait for the interpreter's lock. So the socket
that paho has made (plain, TLS or WebSocket) is read as soon as it is readable and cut into packets here: each PUBLISH
is decoded at once, every other packet paho reads as if from the socket. What is written is gathered, and leaves
together when the callback at hand ends; writes never block, and no thread waits for the socket.

    socket ── readable ──▶ fill ──▶ packets ─┬─ PUBLISH ──▶ Publish
                                             └─ all else ─▶ recv (paho)
    socket ◀── flush ◀── gathered ◀── send (paho), acknowledge

Source: MQTT 5.0, sections 1.5.5 (variable byte integer), 2.1 (fixed header), 3.3 (PUBLISH), 3.4 (PUBACK); paho's
`SocketLike`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple, Protocol

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

READ_BYTES: Final = 262_144
"""Read at once: some five hundred events, a batch, which takes a few milliseconds. Beside a busy writer the loop has few
turns, and what is read in one of them is journaled in one transaction."""

PACKET_MAX_BYTES: Final = 2 * 1024 * 1024
"""No packet above this is taken, and the broker is told so (MQTT 5.0, 3.1.2.11.4: it then delivers none). Nothing of ours
is above 48 KiB; what is somewhat too large still comes, to be refused and kept; the rest would only fill the memory."""

READS_MAX: Final = 64
"""Reads in a row: TLS and WebSockets give a record or a frame at a time."""

LENGTH_BYTES_MAX: Final = 4
"""Bytes of a variable byte integer, at most (MQTT 5.0, 1.5.5)."""

_PUBLISH: Final = 3
_PUBACK: Final = b"\x40\x02"
"""Type and length of the shortest PUBACK, which means success (MQTT 5.0, 3.4.2.1)."""

_PINGREQ: Final = b"\xc0\x00"

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ProtocolError(Exception):
    """What came is no MQTT."""


class Publish(NamedTuple):
    """A PUBLISH packet; `mid` is 0 at QoS 0. Its properties say nothing to a gateway."""

    topic: bytes
    payload: bytes
    mid: int
    qos: int
    retain: bool


class _Socket(Protocol):
    """As much of a socket as paho uses."""

    def recv(self, buffer_size: int) -> bytes: ...
    def send(self, buffer: bytes | bytearray) -> int: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def setblocking(self, flag: bool) -> None: ...  # noqa: FBT001 - as sockets have it


class Wire:
    """A socket for paho over another one. `attach` gives it to an event loop, and to the loop's thread alone."""

    def __init__(self, inner: _Socket) -> None:
        self._inner = inner
        self._incoming = bytearray()
        self._taken = 0
        self._for_paho = bytearray()
        self._outgoing = bytearray()
        self._is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_readable: Callable[[], None] | None = None
        self._flushing: asyncio.Handle | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever there is something to `fill` in; write what was given before."""
        self._loop, self._on_readable = loop, on_readable
        self.resume()
        self._flush()

    def pause(self) -> None:
        """Read no more for now: the peer is held back by TCP."""
        if self._loop is not None:
            self._loop.remove_reader(self.fileno())

    def resume(self) -> None:
        """Read again."""
        if self._loop is not None and self._on_readable is not None:
            self._loop.add_reader(self.fileno(), self._on_readable)

    @property
    def has_for_paho(self) -> bool:
        """Whether `recv` has something to give: bytes, or the end."""
        return bool(self._for_paho) or self._is_over

    def fill(self) -> None:
        """Read what there is, a bounded piece of it."""
        del self._incoming[: self._taken]
        self._taken, size = 0, 0
        for _ in range(READS_MAX):
            try:
                piece = self._inner.recv(READ_BYTES)
            except _WOULD_BLOCK:
                break
            except OSError:
                piece = b""
            if not piece:
                self._is_over = True
                break
            self._incoming += piece
            size += len(piece)
            if size >= READ_BYTES:
                break

    def next_publish(self) -> Publish | None:
        """The next PUBLISH that was read whole; packets before it are for paho. Raises `ProtocolError`."""
        while (bounds := _find_packet(self._incoming, self._taken)) is not None:
            start, body, end = bounds
            self._taken = end
            if self._incoming[start] >> 4 == _PUBLISH:
                return _decode_publish(self._incoming[start], bytes(self._incoming[body:end]))
            self._for_paho += self._incoming[start:end]
        return None

    def recv(self, buffer_size: int) -> bytes:
        """The next bytes for paho; empty at the end. Raises `BlockingIOError` when there are none yet."""
        if not self._for_paho:
            if self._is_over:
                return b""
            raise BlockingIOError
        piece = bytes(self._for_paho[:buffer_size])
        del self._for_paho[:buffer_size]
        return piece

    def ping(self) -> None:
        """Tell the broker that we are there; paho, which waits for the answer to its own, knows nothing of it."""
        self.send(_PINGREQ)

    def acknowledge(self, mids: Iterable[int]) -> None:
        """PUBACK each of these messages."""
        self.send(b"".join([_PUBACK + mid.to_bytes(2, "big") for mid in mids]))

    def send(self, buffer: bytes | bytearray) -> int:
        """Take all of `buffer`; it leaves when the callback at hand ends."""
        self._outgoing += buffer
        if self._loop is not None and self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)
        return len(buffer)

    def close(self) -> None:
        """Write what still can be written at once, and let go.

        One that was never attached writes nothing: its CONNECT would take the session over from the connection that
        came after it.
        """
        if self._loop is not None:
            self._loop.remove_reader(self.fileno())
            self._loop.remove_writer(self.fileno())
            self._loop = None
            with contextlib.suppress(OSError):
                self._inner.send(self._outgoing)
        self._inner.close()

    def fileno(self) -> int:
        """The socket's."""
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - as sockets have it
        """The socket's."""
        self._inner.setblocking(flag)

    def _flush(self) -> None:
        self._flushing = None
        if self._loop is None:
            return
        while self._outgoing:
            try:
                sent = self._inner.send(self._outgoing)
            except _WOULD_BLOCK:
                sent = 0
            except OSError:  # the next read says it, too, and ends the connection
                self._outgoing.clear()
                return
            if not sent:
                self._loop.add_writer(self.fileno(), self._flush)
                return
            del self._outgoing[:sent]
        self._loop.remove_writer(self.fileno())


class WiredClient(Client):
    """paho over a `Wire`, which it makes when it connects; MQTT 5, and PUBACKs are ours to send."""

    def __init__(self, client_id: str, transport: Literal["tcp", "websockets"]) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport=transport,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.wire: Wire | None = None

    def _create_socket(self) -> Wire:
        """The vendor has no setting for this; whatever it makes is wrapped here."""
        made = super()._create_socket()
        if isinstance(made, socket.socket):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Nagle would hold an ack up to 40 ms
        self.wire = Wire(made)
        return self.wire


def _find_packet(data: bytearray, start: int) -> tuple[int, int, int] | None:
    """Where the packet at `start`, its body and the next one begin, None where it is not here whole."""
    length, shift = 0, 0
    for at in range(start + 1, min(start + 1 + LENGTH_BYTES_MAX, len(data))):
        length |= (data[at] & 0x7F) << shift
        shift += 7
        if data[at] < 0x80:
            end = at + 1 + length
            if end - start > PACKET_MAX_BYTES:
                raise ProtocolError(f"a packet of {end - start} bytes, where we take {PACKET_MAX_BYTES}")
            return (start, at + 1, end) if end <= len(data) else None
    if len(data) > start + LENGTH_BYTES_MAX:
        raise ProtocolError("a packet without a length")
    return None


def _decode_publish(header: int, body: bytes) -> Publish:
    qos = header >> 1 & 3
    at = 2 + int.from_bytes(body[:2], "big")
    topic, mid = body[2:at], 0
    if qos:
        mid = int.from_bytes(body[at : at + 2], "big")
        at += 2
    length, shift = 0, 0
    for at in range(at, min(at + LENGTH_BYTES_MAX, len(body))):  # noqa: B020 - on from where it stands
        length |= (body[at] & 0x7F) << shift
        shift += 7
        if body[at] < 0x80:
            return Publish(topic, body[at + 1 + length :], mid, qos, bool(header & 1))
    raise ProtocolError("a PUBLISH without properties")
