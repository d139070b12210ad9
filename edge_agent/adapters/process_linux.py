"""The process and its supervisor: limits, resident memory, and systemd's notification socket (sd_notify(3))."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_MIB: Final = 1024 * 1024

_M_TRIM_THRESHOLD: Final = -1
_M_ARENA_MAX: Final = -8
_TRIM_BYTES: Final = 128 * 1024
"""glibc's own default, fixed: left alone it grows to twice the largest block that was ever freed."""

SWITCH_S: Final = 0.0005
"""How long a busy event loop keeps the interpreter from the store's thread. Python's own 5 ms are paid again after each
system call of a commit, while events wait for it; a switch costs microseconds."""


def prepare_process() -> None:
    """What a run needs before its first connection: file descriptors, threads that get their turn, one heap.

    A link takes a descriptor, and many systems start programs with 1024.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(SWITCH_S)
    _use_one_heap()


def rss_mb() -> int | None:
    """Resident memory in MiB, None where /proc does not say."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") // _MIB


def _use_one_heap() -> None:
    """Let all threads allocate from one heap that gives back what is free at its end.

    glibc gives each thread a heap of its own, against contention that one interpreter lock cannot have; what the store's
    thread has freed after a burst would be lost to the others: 25 MB at 25 600 guards (mallopt(3)). Other C libraries
    have no such setting, and no such heaps.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


class Supervisor:
    """Says `READY=1`, `WATCHDOG=1`, `STOPPING=1` and so on to whoever started us, if they want to know (NOTIFY_SOCKET)."""

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
