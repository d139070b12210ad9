"""The far end of a pseudo-terminal, opened as a program opens a serial port, for tests that look at raw bytes."""

import asyncio
import os
import tty


class Master:
    """The slave side of a pseudo-terminal, opened as a serial port is."""

    def __init__(self, path: str) -> None:
        self._port = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._port)
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self._port, self._hear)

    def _hear(self) -> None:
        try:
            data = os.read(self._port, 4096)
        except OSError:  # the far end is gone
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._port)
        self._heard.put_nowait(data)

    def send(self, data: bytes) -> None:
        os.write(self._port, data)

    async def hear(self, count: int) -> bytes:
        heard = b""
        async with asyncio.timeout(5):
            while len(heard) < count and (data := await self._heard.get()):
                heard += data
        return heard

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._port)
        os.close(self._port)
