"""Row 20: people who hold the gateway's HTTP server instead of using it."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from typing import Final

from tests.chaos.faults.base import Fault
from tests.chaos.plant import Plant

CONNECT_S: Final = 2.0
DRIP_S: Final = 0.5
SLOW, DRIPPING, IDLE = 150, 50, 300
"""Half of the connections that the server takes: the rest is for those who use it."""

HEADER_BOMB: Final = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(
    b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(200)
)
HUGE_BODY: Final = b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n" + bytes(
    1 << 20
)
ENDLESS_HEADERS: Final = b"GET /api/v1/board HTTP/1.1\r\nHost: x\r\n"
ENDLESS_BODY: Final = b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
LIVE_STREAM: Final = b"GET /api/v1/live HTTP/1.1\r\nHost: x\r\n\r\n"


class Siege(Fault):
    """Headers and bodies that never end, header bombs, a gigabyte of body, and live streams that nobody reads."""

    row = 20
    lasts_s = (8.0, 20.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._is_over = threading.Event()
        self._besieging: threading.Thread | None = None

    @property
    def name(self) -> str:
        return f"siege of {SLOW + DRIPPING + IDLE} connections"

    def inject(self, plant: Plant) -> None:
        self._besieging = threading.Thread(target=self._besiege, args=(plant.http_port,), daemon=True)
        self._besieging.start()

    def heal(self, plant: Plant) -> None:
        assert self._besieging is not None
        self._is_over.set()
        self._besieging.join()

    def _besiege(self, port: int) -> None:
        """Whoever is refused or thrown out is replaced at the next drip."""
        with contextlib.ExitStack() as stack:
            dripping: list[tuple[socket.socket, bytes]] = []
            idle: list[socket.socket] = []
            while not self._is_over.is_set():
                for first, drip, count in (
                    (ENDLESS_HEADERS, b"X: y\r\n", SLOW),
                    (ENDLESS_BODY, b"x", DRIPPING),
                ):
                    missing = count - sum(kept == drip for _, kept in dripping)
                    dripping += [(wire, drip) for wire in _dial(stack, port, first, missing)]
                idle += _dial(stack, port, LIVE_STREAM, IDLE - len(idle))
                for attack in (HEADER_BOMB, HUGE_BODY):
                    for wire in _dial(stack, port, attack, 1):
                        wire.close()
                dripping = [(wire, drip) for wire, drip in dripping if _send(wire, drip)]
                self._is_over.wait(DRIP_S)


def _dial(stack: contextlib.ExitStack, port: int, first: bytes, count: int) -> Iterator[socket.socket]:
    """So many connections that have sent this; fewer when the server does not take them."""
    for _ in range(count):
        try:
            wire = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S))
        except OSError:
            return  # it is down, or full
        if _send(wire, first):
            yield wire


def _send(wire: socket.socket, data: bytes) -> bool:
    """Whether it was taken, whole."""
    try:
        wire.sendall(data)
    except OSError:
        wire.close()
        return False
    return True
