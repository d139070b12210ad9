"""The system's clocks: the only place that reads one.

Decisions and durations use CLOCK_BOOTTIME, which goes on through a suspend and never runs back. Wall time is a label:
it is read together with the monotonic clock, so that any monotonic time near it can be labelled. Whether the wall
clock is synchronised is asked of the kernel (`adjtimex`, what every time daemon sets); where that cannot be asked, it
counts as unsynchronised.
"""

from __future__ import annotations

import ctypes
import time
import uuid
from pathlib import Path
from typing import Final

from edge_agent.domain.units import MonoNs, UtcNs
from edge_agent.domain.wall import WallPair

_PAIR_GAP_NS: Final = 100_000
"""A pair whose two readings lie further apart (the process was paused between them) is read again …"""

_PAIR_TRIES: Final = 5
"""… this often, then taken as it is."""

_TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""

_STA_UNSYNC: Final = 0x0040
_STA_NANO: Final = 0x2000

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TIME_OFFSETS: Final = Path("/proc/self/timens_offsets")


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as it is read; the tail is room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


class SystemClock:
    """CLOCK_BOOTTIME, the wall clock, and which boot of the machine this is."""

    def __init__(self) -> None:
        self.boot = _read_boot_id()
        self._adjtimex = _find_adjtimex()

    def mono(self) -> MonoNs:
        """Nanoseconds since boot, suspends included."""
        return MonoNs(time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def pair(self) -> WallPair:
        """One reading of both clocks, belonging together within a tenth of a millisecond."""
        for _ in range(_PAIR_TRIES):
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            utc = time.time_ns()  # noqa: TID251 — the one place where clocks are read
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if after - before <= _PAIR_GAP_NS:
                break
        synced, _ = self._kernel_sync()
        return WallPair(mono=MonoNs((before + after) // 2), utc=UtcNs(utc), synced=synced)

    def offset_ms(self) -> int | None:
        """What the kernel still has to correct, in milliseconds; None while unsynchronised."""
        return self._kernel_sync()[1]

    def _kernel_sync(self) -> tuple[bool, int | None]:
        if self._adjtimex is None:
            return False, None
        timex = _Timex()
        state = self._adjtimex(ctypes.byref(timex))
        if state in {-1, _TIME_ERROR} or timex.status & _STA_UNSYNC:
            return False, None
        per_ms = 1_000_000 if timex.status & _STA_NANO else 1_000
        return True, int(timex.offset / per_ms)


def _find_adjtimex() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None


def _read_boot_id() -> str:
    """The kernel's boot id; where there is none, a new one per run: times of two runs are then never compared.

    A time namespace whose monotonic clocks are shifted (a container that was moved between machines; time_namespaces(7))
    has the kernel's boot id, but clocks of its own: that is another boot.
    """
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = ""
    if not boot:
        return str(uuid.uuid4())
    offsets = _read_time_offsets()
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{boot} {offsets}")) if any(offsets) else boot


def _read_time_offsets() -> list[int]:
    """By how much this namespace's monotonic clocks are shifted: seconds and nanoseconds of each; none on old kernels."""
    try:
        lines = _TIME_OFFSETS.read_text().splitlines()
    except OSError:
        return []
    return [int(number) for line in lines for number in line.split()[1:]]
