"""A broker connection on the event loop, with the packets that there are thousands of read and written beside paho.

paho spends some hundred microseconds on a PUBLISH and its PUBACK: locks, an object for each message id, three system
calls to read six bytes, a thread that must be given the interpreter for each. A burst is 25 600 of them. So the socket
that paho has made (plain, TLS or WebSocket) is read in large pieces as soon as it is readable and cut into packets: those
of the kind that is wanted (PUBACK at the agent, PUBLISH at the gateway) are taken out, every other packet paho reads as if
from the socket. What is written is gathered, and leaves together when the callback at hand ends; writes never block,
and no thread waits for the socket.

    socket ── readable ──▶ fill ──▶ next_packet ─┬─ of the wanted kind ──▶ its caller
                                                 └─ all else ──▶ recv (paho)
    socket ◀── flush ◀── gathered ◀── send (paho, and whoever writes packets of his own)

Source: MQTT 5.0, sections 1.5.5 (variable byte integer) and 2.1 (fixed header); paho's `SocketLike`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import termios
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import ioctl
from typing import Final, NamedTuple, Protocol

WRITE_BYTES: Final = 65_536
"""Written at once, then others have a turn: paho makes a WebSocket frame of it byte by byte, 0.1 us each."""

LENGTH_BYTES_MAX: Final = 4
"""Bytes of a variable byte integer, at most (MQTT 5.0, 1.5.5)."""

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ProtocolError(Exception):
    """What came is no MQTT, or more than was agreed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`read_bytes` are read at once, before others have a turn; a packet above `packet_bytes` ends the connection."""

    read_bytes: int
    packet_bytes: int


class Packet(NamedTuple):
    """A packet that came whole: the first byte of its fixed header, and what follows its length."""

    header: int
    body: bytes


class _Socket(Protocol):
    """As much of a socket as paho uses."""

    def recv(self, buffer_size: int) -> bytes: ...
    def send(self, buffer: bytes | bytearray) -> int: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def setblocking(self, flag: bool) -> None: ...  # noqa: FBT001 - as sockets have it


class Wire:
    """A socket for paho over another one. `attach` gives it to an event loop, and to the loop's thread alone."""

    def __init__(self, inner: _Socket, limits: Limits) -> None:
        self._inner = inner
        self._limits = limits
        self._incoming = bytearray()
        self._taken = 0
        self._for_paho = bytearray()
        self._outgoing = bytearray()
        self._is_over = False
        self.given_bytes = 0
        """How much was ever given to `send`."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_readable: Callable[[], None] | None = None
        self._flushing: asyncio.Handle | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever there is something to `fill` in, the end too; write what was given before."""
        self._loop, self._on_readable = loop, on_readable
        self.resume()
        self._flush()

    def pause(self) -> None:
        """Read no more for now: the peer is held back by TCP."""
        if self._loop is not None:
            self._loop.remove_reader(self.fileno())

    def resume(self) -> None:
        """Read again. What TLS has read already does not show in the socket: `fill` once more."""
        if self._loop is not None and self._on_readable is not None:
            self._loop.add_reader(self.fileno(), self._on_readable)

    def fill(self) -> bool:
        """Read what there is; False when it was more than is read at once, and the rest may not show in the socket."""
        del self._incoming[: self._taken]
        self._taken = size = 0
        while size < self._limits.read_bytes and not self._is_over:
            try:
                piece = self._inner.recv(self._limits.read_bytes)
            except _WOULD_BLOCK:
                return True
            except OSError:
                piece = b""
            self._is_over = not piece
            self._incoming += piece
            size += len(piece)
        return self._is_over

    @property
    def has_for_paho(self) -> bool:
        """Whether `recv` has something to give: bytes, or the end."""
        return bool(self._for_paho) or self._is_over

    def next_packet(self, kind: int) -> Packet | None:
        """The next packet that was read whole, when it is of that kind (MQTT 5.0, 2.1.2); else it is for paho.

        Raises `ProtocolError`.
        """
        bounds = self._find_packet()
        if bounds is None:
            return None
        start, body, self._taken = bounds
        if self._incoming[start] >> 4 == kind:
            return Packet(self._incoming[start], bytes(self._incoming[body : self._taken]))
        self._for_paho += self._incoming[start : self._taken]
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
        except OSError:  # what is dropped may be half a packet: nothing can follow it
            self._outgoing.clear()
            self._is_over = True
            if self._on_readable is not None:
                self._loop.call_soon(self._on_readable)
        if self._outgoing:
            self._loop.add_writer(self.fileno(), self._flush)
        else:
            self._loop.remove_writer(self.fileno())

    def _find_packet(self) -> tuple[int, int, int] | None:
        """Where the next packet, its body and the one after it begin, None where it is not here whole."""
        data, start = self._incoming, self._taken
        length, shift = 0, 0
        for at in range(start + 1, min(start + 1 + LENGTH_BYTES_MAX, len(data))):
            length |= (data[at] & 0x7F) << shift
            shift += 7
            if data[at] < 0x80:
                end = at + 1 + length
                if end - start > self._limits.packet_bytes:
                    size, most = end - start, self._limits.packet_bytes
                    raise ProtocolError(f"a packet of {size} bytes, where we take {most}")
                return (start, at + 1, end) if end <= len(data) else None
        if len(data) > start + LENGTH_BYTES_MAX:
            raise ProtocolError("a packet without a length")
        return None
