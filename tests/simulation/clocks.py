"""Clocks of simulated nodes: a quartz of its own each, wall clocks that jump, boots.

The monotonic clock of a node runs a few parts per million fast or slow against virtual time and never regresses; a
reboot begins a new one under a new boot id. The wall clock is the monotonic one plus an offset that the world moves:
steps forwards and backwards, and a boot without network time, when it starts in 1970 and is not `synced`.
"""

from __future__ import annotations

from typing import Final

from edge_agent.domain.units import MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from tests.simulation.virtual_loop import NS_PER_S, VirtualLoop

START_UTC_NS: Final = 1_790_000_000 * NS_PER_S
"""True UTC at the beginning of virtual time (2026-09-21)."""

MILLION: Final = 1_000_000


class NodeClock:
    """One machine's clocks; `drift_ppm` is its quartz's error. It outlives the processes that run on the machine."""

    def __init__(self, loop: VirtualLoop, name: str, drift_ppm: int) -> None:
        self._loop = loop
        self._name = name
        self._drift_ppm = drift_ppm
        self._boots = 1
        self._booted_ns = loop.now_ns
        self.wall_error_ns = 0
        self.is_synced = True

    @property
    def boot(self) -> str:
        """Which boot of the machine this is."""
        return f"{self._name}-boot-{self._boots}"

    def mono(self) -> MonoNs:
        """Nanoseconds since the boot, by this machine's quartz."""
        elapsed_ns = self._loop.now_ns - self._booted_ns
        return MonoNs(NS_PER_S + elapsed_ns + elapsed_ns * self._drift_ppm // MILLION)

    def virtual_ns(self, boot: str, mono_ms: int) -> int | None:
        """The virtual time of a monotonic time of the present boot, None for another's: for auditors."""
        if boot != self.boot:
            return None
        elapsed_ns = mono_ms * 1_000_000 - NS_PER_S
        return self._booted_ns + elapsed_ns * MILLION // (MILLION + self._drift_ppm)

    def utc_ns(self) -> int:
        """What the wall clock says."""
        return START_UTC_NS + self._loop.now_ns + self.wall_error_ns

    def pair(self) -> WallPair:
        """Both clocks, read together."""
        return WallPair(self.mono(), UtcNs(self.utc_ns()), self.is_synced)

    def utc_ms(self) -> int:
        """What the wall clock says, in milliseconds: what the gateway's clock reads."""
        return self.utc_ns() // MILLION

    def mono_ms(self) -> int:
        """The monotonic clock in milliseconds."""
        return self.mono() // MILLION

    def offset_ms(self) -> int | None:
        """What the wall clock is known to be off: nothing, when it is synchronised."""
        return 0 if self.is_synced else None

    def step_wall(self, by_ns: int) -> None:
        """Somebody sets the clock."""
        self.wall_error_ns += by_ns

    def reboot(self, *, is_synced: bool) -> None:
        """A new boot; without network time the wall clock starts in 1970."""
        self._boots += 1
        self._booted_ns = self._loop.now_ns
        self.is_synced = is_synced
        self.wall_error_ns = 0 if is_synced else -(START_UTC_NS + self._loop.now_ns)

    def synchronise(self) -> None:
        """Network time sets the clock right."""
        self.is_synced = True
        self.wall_error_ns = 0
