"""The agent's broker connection on the event loop, with the two packets there are thousands of written and read here.

paho spends a hundred microseconds and more on a PUBLISH and its PUBACK: locks, an object for each message id, three system
calls to read six bytes, a thread that must be given the interpreter for each. A burst is 25 600 of them. So the socket
that paho has made (plain, TLS or WebSocket) is read in large pieces as soon as it is readable and cut into packets:
a PUBACK is decoded at once, every other packet paho reads as if from the socket. What is written is gathered, and leaves
together when the callback at hand ends; writes never block, and no thread waits for the socket.

    socket ── readable ──▶ fill ──▶ packets ─┬─ PUBACK ──▶ Puback
                                             └─ all else ─▶ recv (paho)
    socket ◀── flush ◀── gathered ◀── send (paho), encode_publish

Source: MQTT 5.0, sections 1.5.5 (variable byte integer), 2.1 (fixed header), 3.3 (PUBLISH), 3.4 (PUBACK); paho's
`SocketLike`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import termios
from collections.abc import Callable
from fcntl import ioctl
from typing import Final, Literal, NamedTuple, Protocol

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

READ_BYTES: Final = 65_536
"""Read at once: more than the PUBACKs of a whole window, so that a broker that floods us leaves turns to others."""

WRITE_BYTES: Final = 65_536
"""Written at once, then others have a turn: paho makes a WebSocket frame of it byte by byte, 0.1 us each."""

PACKET_MAX_BYTES: Final = 128 * 1024
"""No packet above this is taken, and the broker is told so (MQTT 5.0, 3.1.2.11.4: it then delivers none). What comes is
acks, of some hundred bytes; whoever writes a large one fills no memory."""

_LENGTH_BYTES_MAX: Final = 4
"""Bytes of a variable byte integer, at most (MQTT 5.0, 1.5.5)."""

_PUBLISH_QOS_1: Final = 0x32
_RETAIN: Final = 0x01
_PUBACK: Final = 4
_MID_BYTES: Final = 2
_SUCCESS: Final = 0
_MESSAGE_EXPIRY: Final = b"\x05\x02"
"""The properties of a PUBLISH that expires, up to the four bytes of seconds: their length, and which it is (3.3.2.3.3)."""

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ProtocolError(Exception):
    """What came is no MQTT."""


class Puback(NamedTuple):
    """The broker's answer to the PUBLISH `mid`; `code` is MQTT's reason code, 0 for success."""

    mid: int
    code: int


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
        self._incoming = b""
        self._taken = 0
        self._for_paho = bytearray()
        self._outgoing = bytearray()
        self._is_over = False
        self.given_bytes = 0
        """How much was ever given to `send`."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flushing: asyncio.Handle | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever there is something to `fill` in; write what was given before."""
        self._loop = loop
        loop.add_reader(self.fileno(), on_readable)
        self._flush()

    def fill(self) -> bool:
        """Read what there is; False when it was more than is read at once, and the rest may not show in the socket."""
        pieces, size = [self._incoming[self._taken :]], 0
        while size < READ_BYTES and not self._is_over:
            try:
                piece = self._inner.recv(READ_BYTES)
            except _WOULD_BLOCK:
                break
            except OSError:
                piece = b""
            self._is_over = not piece
            pieces.append(piece)
            size += len(piece)
        self._incoming, self._taken = b"".join(pieces), 0
        return size < READ_BYTES

    @property
    def has_for_paho(self) -> bool:
        """Whether `recv` has something to give: bytes, or the end."""
        return bool(self._for_paho) or self._is_over

    def next_puback(self) -> Puback | None:
        """The next packet that was read whole, when it is a PUBACK; else it is for paho. Raises `ProtocolError`."""
        data, start = self._incoming, self._taken
        bounds = _find_packet(data, start)
        if bounds is None:
            return None
        body, self._taken = bounds
        if data[start] >> 4 == _PUBACK:
            after_mid = body + _MID_BYTES
            if self._taken < after_mid:
                raise ProtocolError("a PUBACK of nothing")
            code = data[after_mid] if self._taken > after_mid else _SUCCESS
            return Puback(int.from_bytes(data[body:after_mid], "big"), code)
        self._for_paho += data[start : self._taken]
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

    def send(self, buffer: bytes | bytearray) -> int:
        """Take all of `buffer`; it leaves when the callback at hand ends."""
        self._outgoing += buffer
        self.given_bytes += len(buffer)
        if self._loop is not None and self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)
        return len(buffer)

    def arrived_bytes(self) -> int:
        """How much of what was given the other machine has acknowledged; never too much (TLS and frames count as ours).

        Linux says what of a TCP stream is not acknowledged yet: tcp(7), SIOCOUTQ.
        """
        unsent = int.from_bytes(ioctl(self.fileno(), termios.TIOCOUTQ, bytes(4)), "little")
        return self.given_bytes - len(self._outgoing) - unsent

    def close(self) -> None:
        """Write what still can be written at once, and let go.

        One that was never attached writes nothing: its CONNECT would take the session over from the connection that
        came after it, and end with our last will.
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
        try:
            del self._outgoing[: self._inner.send(self._outgoing[:WRITE_BYTES])]
        except _WOULD_BLOCK:
            pass
        except OSError:  # the next read says it, too, and ends the connection
            self._outgoing.clear()
        if self._outgoing:
            self._loop.add_writer(self.fileno(), self._flush)
        else:
            self._loop.remove_writer(self.fileno())


class WiredClient(Client):
    """paho over a `Wire`, which it makes when it connects; MQTT 5."""

    def __init__(self, client_id: str, transport: Literal["tcp", "websockets"]) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport=transport,
            reconnect_on_failure=False,
        )
        self.wire: Wire | None = None

    def _create_socket(self) -> Wire:
        """The vendor has no setting for this; whatever it makes is wrapped here."""
        self.wire = Wire(super()._create_socket())
        return self.wire

    def _create_socket_connection(self) -> socket.socket:
        """Below TLS and WebSocket: Nagle would hold a PUBLISH up to 40 ms."""
        made = super()._create_socket_connection()
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


def encode_publish(topic: str, payload: bytes, mid: int, *, retain: bool, expiry_s: int | None) -> bytes:
    """A PUBLISH packet at QoS 1; `expiry_s` is its Message Expiry Interval, None for none."""
    name = topic.encode()
    properties = b"\0" if expiry_s is None else _MESSAGE_EXPIRY + expiry_s.to_bytes(4, "big")
    header = _PUBLISH_QOS_1 | _RETAIN if retain else _PUBLISH_QOS_1
    length = len(name) + len(properties) + len(payload) + 4
    parts = (
        _length_bytes(header, length),
        len(name).to_bytes(2, "big"),
        name,
        mid.to_bytes(2, "big"),
        properties,
        payload,
    )
    return b"".join(parts)


def _length_bytes(header: int, length: int) -> bytes:
    """A fixed header: type and flags, then the length of what follows."""
    packed = bytearray([header])
    while length > 0x7F:
        packed.append(length & 0x7F | 0x80)
        length >>= 7
    packed.append(length)
    return bytes(packed)


def _find_packet(data: bytes, start: int) -> tuple[int, int] | None:
    """Where the body of the packet at `start` and the next packet begin, None where it is not here whole."""
    length, shift = 0, 0
    for at in range(start + 1, min(start + 1 + _LENGTH_BYTES_MAX, len(data))):
        length |= (data[at] & 0x7F) << shift
        shift += 7
        if data[at] < 0x80:
            end = at + 1 + length
            if end - start > PACKET_MAX_BYTES:
                raise ProtocolError(f"a packet of {end - start} bytes, where we take {PACKET_MAX_BYTES}")
            return (at + 1, end) if end <= len(data) else None
    if len(data) > start + _LENGTH_BYTES_MAX:
        raise ProtocolError("a packet without a length")
    return None
