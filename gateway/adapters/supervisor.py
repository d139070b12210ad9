"""Whoever started us and wants to know how we are: systemd's notification socket (sd_notify(3))."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping


class Supervisor:
    """Says `READY=1`, `WATCHDOG=1`, `STOPPING=1` and so on; without NOTIFY_SOCKET in the environment, to nobody."""

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

    def reloading(self) -> None:
        """The configuration is being looked at; `READY=1` says that it is in force, or that the old one is still."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.notify(f"RELOADING=1\nMONOTONIC_USEC={now_us}")
