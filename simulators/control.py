"""A control port: one JSON object a line in, one a line out, for tests and benches in other processes.

It has no passwords, so it listens on the loopback interface only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final

LINE_BYTES_MAX: Final = 65_536  # thousands of times any request
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

Answer = dict[str, object]
Handler = Callable[[dict[str, object]], Answer]


class ControlPort:
    """Serves `handler` on `address` (after `start` the real one). A handler refuses by raising ValueError."""

    def __init__(self, handler: Handler, address: tuple[str, int]) -> None:
        assert address[0] in LOOPBACK, "the control port is for this machine only"
        self.address = address
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> tuple[str, int]:
        """Listen; returns the address. Raises OSError when the port cannot be had."""
        self._server = await asyncio.start_server(self._serve, *self.address, limit=LINE_BYTES_MAX)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self.address

    async def stop(self) -> None:
        """Close the port and its connections."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line), separators=(",", ":")).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # gone, or a line beyond the limit: either way this connection is over
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, line: bytes) -> Answer:
        try:
            return {"ok": True, **self._handler(read_request(line))}
        except (ValueError, RecursionError) as error:
            return {"ok": False, "error": str(error)}


def read_request(line: bytes) -> dict[str, object]:
    """The JSON object of a line. Raises ValueError when it is none."""
    request = json.loads(line)
    if not isinstance(request, dict):
        raise ValueError("the line is no JSON object — write one object a line")
    return request
