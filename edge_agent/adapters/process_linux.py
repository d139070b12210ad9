"""The process and its supervisor: resident memory, and systemd's notification socket (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_MIB: Final = 1024 * 1024


def rss_mb() -> int | None:
    """Resident memory in MiB, None where /proc does not say."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") // _MIB


class Supervisor:
    """Says `READY=1`, `WATCHDOG=1`, `STOPPING=1` to whoever started us, if they want to know (NOTIFY_SOCKET)."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")

    def notify(self, state: str) -> None:
        """Send one state; nobody listening is no error."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
            wire.settimeout(1.0)
            try:
                wire.sendto(state.encode(), address)
            except OSError:
                return  # the supervisor is gone: that is its affair
