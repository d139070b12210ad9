"""A supervisor of the tests' own: systemd's side of sd_notify(3), which keeps what it was told, and when."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Notice:
    """One datagram, by its lines; `at_s` is CLOCK_MONOTONIC."""

    at_s: float
    fields: dict[str, str]


class FakeSupervisor:
    """Listens on `path`; give it to a program as NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told: list[Notice] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._socket.bind(str(self.path))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    @property
    def told(self) -> list[Notice]:
        """Everything so far."""
        return list(self._told)

    def count(self, field: str) -> int:
        """How many times it was told this, e.g. `READY=1`."""
        name, _, value = field.partition("=")
        return sum(notice.fields.get(name) == value for notice in self.told)

    def story(self) -> list[str]:
        """What it was told but for pings, in order."""
        return [next(iter(notice.fields)) for notice in self.told if "WATCHDOG" not in notice.fields]

    def silence_s(self) -> float:
        """For how long no ping has come."""
        pings = [notice.at_s for notice in self.told if "WATCHDOG" in notice.fields]
        return time.monotonic() - max(pings, default=float("-inf"))

    def _listen(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(4096)
            except OSError:
                return
            if not datagram:
                return
            fields = dict(line.split("=", 1) for line in datagram.decode().splitlines())
            self._told.append(Notice(time.monotonic(), fields))
