"""A serial line as an asyncio transport: opened by the vendor's library, read and written on its file descriptor.

One process has the line (an advisory lock). A pulled adapter makes the descriptor readable with an error or with nothing: the
connection is lost at once, and the link opens the line again when it is back.

Characters have 11 bits (Modbus over Serial Line 1.02, 2.5.1): start, 8 data bits, parity, stop; without parity a second stop bit
takes its place. Many devices send only one then: `stopbits=1` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
from collections.abc import Callable
from typing import Final

import serial

from edge_agent.adapters.fieldbus_connection import Connection

CHARACTER_BITS: Final = 11
FRAME_SILENCE_CHARACTERS: Final = 3.5
FRAME_SILENCE_LEAST_S: Final = 0.00175
"""Above 19200 baud the silence between frames is fixed (Modbus over Serial Line 1.02, 2.5.1.1)."""

_FIXED_ABOVE_BAUD: Final = 19200
_CHUNK_BYTES: Final = 4096


def frame_silence_s(baud: int) -> float:
    """The silence that ends a frame at this rate: 3.5 characters, or the fixed time above 19200 baud."""
    if baud > _FIXED_ABOVE_BAUD:
        return FRAME_SILENCE_LEAST_S
    return FRAME_SILENCE_CHARACTERS * CHARACTER_BITS / baud


class _SerialTransport(asyncio.Transport):
    """The open line; one small request at a time never fills the kernel's buffer."""

    def __init__(self, port: serial.Serial, connection: Connection) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._descriptor = port.fileno()
        self._connection = connection
        self._is_open = True
        self._loop.add_reader(self._descriptor, self._receive)
        connection.connection_made(self)

    def is_closing(self) -> bool:
        return not self._is_open

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if not self._is_open:
            return
        try:
            sent = os.write(self._descriptor, data)
        except OSError as error:
            self._end(error)
            return
        if sent < len(data):
            self._end(OSError("the line takes nothing more"))

    def abort(self) -> None:
        self._end(None)

    def _receive(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._connection.data_received(data)
        else:
            self._end(None)

    def _end(self, error: OSError | None) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._descriptor)
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(
                self._descriptor, termios.TCIOFLUSH
            )  # else closing may wait for what cannot be sent
        with contextlib.suppress(OSError, termios.error):
            self._port.close()
        self._loop.call_soon(self._connection.connection_lost, error)


class SerialDial:
    """A serial line to open, again and again; `parity` E, O or N."""

    def __init__(self, path: str, baud: int, parity: str, stopbits: int) -> None:
        self.name = path
        self._baud = baud
        self._parity = parity
        self._stopbits = stopbits

    @property
    def closed_early(self) -> str:
        """What the loss of the line before any answer means."""
        return "the line was lost before any answer"

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        """The open line, see `fieldbus_stream.Dial`; opening does not wait for the device."""
        try:
            port = serial.Serial(
                self.name,
                baudrate=self._baud,
                bytesize=serial.EIGHTBITS,
                parity=self._parity,
                stopbits=self._stopbits,
                timeout=0,
                exclusive=True,
            )
        except (termios.error, ValueError) as error:
            raise OSError(f"{self.name} is no serial line that can be set so: {error}") from error
        connection = make()
        _SerialTransport(port, connection)
        return connection
