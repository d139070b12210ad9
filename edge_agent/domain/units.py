"""Units and ids as types, so that a monotonic time can never stand where a wall time belongs."""

from __future__ import annotations

from typing import NewType

MonoNs = NewType("MonoNs", int)
"""Nanoseconds of CLOCK_BOOTTIME: every decision and duration. Meaningless across boots."""

UtcNs = NewType("UtcNs", int)
"""Nanoseconds since 1970-01-01 UTC: labels only."""

SiteId = NewType("SiteId", str)
AgentId = NewType("AgentId", str)
DeviceId = NewType("DeviceId", str)
MachineId = NewType("MachineId", str)
GuardId = NewType("GuardId", str)

SignalId = NewType("SignalId", int)
"""Index into `CellPlan.signals`."""

BlockId = NewType("BlockId", int)
"""Index into `CellPlan.blocks`."""

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
