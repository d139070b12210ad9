"""One block becomes several while all goes on: nothing that is known of its signals is lost, and nobody is woken.

The parts take over what the block had read, when, and how it was supplied. Signals move to their part as they are, with
value, quality and the debouncing that is under way; judges that read them follow, and go on watching what they watch.

Source: the outside contract, section 2 ("Unknown"): a value stands until its own reply is too old.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge_agent.domain.device import DeviceWatch
from edge_agent.domain.evidence import blocks_of
from edge_agent.domain.node import Node
from edge_agent.domain.plan import ReadBlock
from edge_agent.domain.quality import BlockState
from edge_agent.domain.signal import Signal


def divide(
    state: BlockState,
    parts: Sequence[ReadBlock],
    signals: Sequence[Signal],
    device: DeviceWatch,
    readers: Iterable[Node],
) -> list[BlockState]:
    """The states of `parts`, which take the place of `state` with its device, its signals and their `readers`."""
    beat = None if device.plan.heartbeat is None else device.plan.heartbeat.signal
    states = [state.part(part, has_heartbeat=beat in part.signals) for part in parts]
    for part in states:
        part.has_proof = any(check.plan.signal in part.plan.signals for check in device.checks)
        for index in part.plan.signals:
            signals[index].move(part)
    for node in readers:
        node.follow(blocks_of(node.inputs))
    place = device.blocks.index(state)
    own = (*device.blocks[:place], *states, *device.blocks[place + 1 :])
    for node in (device, *device.readers):
        node.follow(own)
    for part in states:
        part.settle_quiet()
    return states
