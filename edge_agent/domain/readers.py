"""Who reads what: the judges behind each signal and each block, in the order in which they must step.

Worked out once, so that a changed bit wakes exactly those that care. Equal lists are one object: both channels of a
guard have the same readers, and a plant has tens of thousands of guards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from edge_agent.domain.node import Node
from edge_agent.domain.plan import ReadBlock

Readers: TypeAlias = tuple[Node, ...]
"""Each node once, by index."""


def readers_of_signals(nodes: Iterable[Node], signal_count: int) -> tuple[Readers, ...]:
    """Per signal, which of `nodes` hear it, or what it proves."""
    readers: list[list[Node]] = [[] for _ in range(signal_count)]
    shared: dict[Readers, Readers] = {}
    for node in nodes:
        shared.setdefault(node.readers, node.readers)  # a lock has the readers of its channel pair
        for signal in node.heard:
            readers[signal.plan.id].append(node)
            for check in signal.checks:
                readers[check.signal.plan.id].append(node)
    return tuple(shared.setdefault(ordered, ordered) for ordered in map(_in_order, readers))


def readers_of_block(block: ReadBlock, readers: Sequence[Readers]) -> Readers:
    """Who reads any signal of `block`; `readers` are those of each signal."""
    return _in_order([node for signal in block.signals for node in readers[signal]])


def _in_order(nodes: list[Node]) -> Readers:
    return tuple(sorted(dict.fromkeys(nodes), key=lambda node: node.index))
