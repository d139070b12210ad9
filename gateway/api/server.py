"""The HTTP server: uvicorn under the composition root's hand.

uvicorn would take the process's signals for itself and wait for open streams for ever. Here signals are the
composition root's: it calls `stop`, which ends the live streams first, so that nothing is left to wait for but requests
under way, and those for `DRAIN_S` at most.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from gateway.api.limits import HEADERS_MAX_BYTES
from gateway.services.live import Live

DRAIN_S = 2
"""For requests under way at a stop; the whole stop has 5 s."""
KEEP_ALIVE_S = 15
"""An idle connection is kept this long: longer than between a person's clicks, shorter than a proxy's limit."""
CONNECTIONS_MAX = 1000
"""More are refused with 503: each open board is one or two, so this is hundreds of screens."""
BACKLOG = 256


class ApiServer(uvicorn.Server):
    """One server on one socket. `serve` it as a task, `stop` it, and the task ends."""

    def __init__(self, app: ASGIApp, live: Live) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",  # the one of uvicorn's parsers that bounds headers that never end
                h11_max_incomplete_event_size=HEADERS_MAX_BYTES,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
                limit_concurrency=CONNECTIONS_MAX,
                backlog=BACKLOG,
            )
        )
        self._live = live

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield

    def stop(self) -> None:
        """End the streams, then the server."""
        self._live.close()
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """The listening socket (port 0: any free one). Raises `OSError` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
