"""What steps: the small judges that the engine wakes when their inputs change, when a sample comes, or in time.

A node is woken (`step`) when a signal or block it reads has changed, at every good sample of its blocks while it is
`watching`, and at `due`. It says by its return value whether those that read *it* must step too. Nodes step in the
order of `index`, which is the order of dependence: devices, machines, channel pairs, guards, lost monitoring (the
parents), then the other rules (which may be hidden by them).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from edge_agent.domain.evidence import blocks_of
from edge_agent.domain.quality import BlockState
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs


class Node(ABC):
    """One judge. `inputs` is what it judges by, `heard` what wakes it (nothing, for those that read qualities only).

    `index`, `is_marked` and `armed` (the earliest deadline queued for it) are the engine's.
    """

    def __init__(self, inputs: Sequence[Signal]) -> None:
        self.inputs = tuple(inputs)
        self.heard = self.inputs
        self.blocks: tuple[BlockState, ...] = blocks_of(self.inputs)
        self.index = -1
        self.is_marked = False
        self.armed: MonoNs | None = None
        self.due: MonoNs | None = None
        self.readers: tuple[Node, ...] = ()
        self._watching = False

    @abstractmethod
    def step(self, now: MonoNs, *, sampled: bool) -> bool:
        """Judge anew; `sampled` when a good reply of one of its blocks is the cause. Whether readers must step."""

    @property
    def watching(self) -> bool:
        """Whether it wants to step at every good sample of its blocks."""
        return self._watching

    @watching.setter
    def watching(self, wanted: bool) -> None:
        if wanted == self._watching:
            return
        self._watching = wanted
        for block in self.blocks:
            block.watchers += 1 if wanted else -1
            block.settle_quiet()

    @property
    def is_pending(self) -> bool:
        """Whether some block has not had its first reply, nor had its time for one."""
        return any(block.is_pending for block in self.blocks)
