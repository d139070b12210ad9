"""What steps: the small judges that the engine wakes when their inputs change, when a sample comes, or in time.

A node is woken (`step`) when a signal or block it reads has changed, at every good sample of its blocks while it is
`watching`, and at `due`. It says by its return value whether those that read *it* must step too. Nodes step in the
order of `index`, which is the order of dependence: devices, machines, channel pairs, guards, lost monitoring (the
parents), then the other rules (which may be hidden by them).

A plant has a hundred thousand of them, nearly all of them quiet: a node has slots, no dict, and what can be worked out
from its plan or shared with its neighbours is not kept in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from edge_agent.domain.evidence import blocks_of
from edge_agent.domain.quality import BlockState
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import MonoNs


class Node(ABC):
    """One judge. A subclass sets what `inputs` reads before it calls this class's `__init__`.

    `index`, `is_marked` and `armed` (the earliest deadline queued for it) are the engine's.
    """

    __slots__ = ("_watching", "armed", "blocks", "due", "index", "is_marked")

    def __init__(self) -> None:
        self.blocks: tuple[BlockState, ...] = blocks_of(self.inputs)
        self.index = -1
        self.is_marked = False
        self.armed: MonoNs | None = None
        self.due: MonoNs | None = None
        self._watching = False

    @property
    @abstractmethod
    def inputs(self) -> tuple[Signal, ...]:
        """What it judges by."""

    @property
    def heard(self) -> tuple[Signal, ...]:
        """What wakes it: its inputs, or nothing for those that read qualities only."""
        return self.inputs

    @property
    def readers(self) -> tuple[Node, ...]:
        """The nodes that read this one's judgement."""
        return ()

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
            if wanted:
                block.watchers[self.index] = None
            else:
                del block.watchers[self.index]
            block.settle_quiet()

    def follow(self, blocks: tuple[BlockState, ...]) -> None:
        """Its inputs live in these blocks from now on; it goes on watching if it watches."""
        watching = self.watching
        self.watching = False
        self.blocks = blocks
        self.watching = watching

    @property
    def is_pending(self) -> bool:
        """Whether some block has not had its first reply, nor had its time for one."""
        return any(block.is_pending for block in self.blocks)
