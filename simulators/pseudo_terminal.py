"""A serial line without a wire: a pseudo-terminal, whose slave side is the master's serial port.

The kernel gives two ends. The slave end has a path under /dev/pts, takes termios settings as a real adapter does and is
what the agent opens; the other end is a byte stream here. It is raw from the start: an untouched terminal would echo
every request and turn 0x0D into 0x0A. We keep the slave end open ourselves, since the kernel hangs up our end whenever
its last user closes it; `close` is the adapter being pulled out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 4096

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


class _FarEnd(asyncio.Transport):
    """Our end as a transport. Event loops differ in which files they take as pipes; all of them watch a descriptor."""

    def __init__(self, descriptor: int, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._protocol = protocol
        self._is_open = True
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        protocol.connection_made(self)
        self._loop.add_reader(descriptor, self._receive)

    def is_closing(self) -> bool:
        return not self._is_open

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        """Put it on the line; what the kernel's buffer has no room for is lost, as on a wire that nobody reads."""
        if self._is_open:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, data)

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._loop.call_soon(self._protocol.connection_lost, None)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            if data := os.read(self._descriptor, CHUNK_BYTES):
                self._protocol.data_received(data)


class PseudoTerminal:
    """One pseudo-terminal, served by `serve` from `open` to `close`. `path`, when given, becomes a link to it."""

    def __init__(self, serve: Serve, path: Path | None = None) -> None:
        self.path = path
        self._link = path
        self._serve = serve
        self._slave = -1
        self._end: _FarEnd | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the port is there."""
        return self._life is not None

    async def open(self) -> Path:
        """Make it; returns the path to open. Raises OSError when the path is taken by something that is no link."""
        assert self._life is None, "already open"
        far, self._slave = pty.openpty()
        tty.setraw(self._slave)
        named = Path(os.ttyname(self._slave))
        if self._link is not None:
            self._point_link_at(named, far)
        self.path = self._link or named
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        self._end = _FarEnd(far, protocol)
        writer = asyncio.StreamWriter(self._end, protocol, reader, loop)
        self._life = asyncio.create_task(self._serve(reader, writer))
        return self.path

    async def close(self) -> None:
        """Pull it out: whoever has it open reads an end of file."""
        if self._life is None:
            return
        life, self._life = self._life, None
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
        if self._end is not None:
            self._end.abort()
        os.close(self._slave)
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def _point_link_at(self, target: Path, far: int) -> None:
        assert self._link is not None
        try:
            if self._link.is_symlink():
                self._link.unlink()
            self._link.symlink_to(target)
        except OSError as error:
            os.close(far)
            os.close(self._slave)
            raise OSError(f"cannot make the serial port {self._link}: {error.strerror}") from error
