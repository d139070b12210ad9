"""What becomes of a request that a device refuses: two smaller ones, so that its good signals lose nothing.

Theory of operation. A device answers exception 02 (illegal data address) when one address of a span is not there, or
when the span is longer than it bears. Nothing says which, so the request is cut in two and each half stands on its own;
a half that is refused again is cut again. It is cut only while the device gives a piece of what it refuses (`pieces`): one
that refuses everything is starting, or being loaded, and will give the whole again. The cut is in the largest gap between what must stay together (the planner's
atoms: values of several registers, both channels of a guard), because unused addresses are the likeliest to be missing;
where there is no gap, nearest to the middle. Each part reads exactly what its signals need, without the addresses that
were read along.

    hr/0 1 2 . . . . 7 8  refused   ──▶   hr/0…2   hr/7…8

`locked` and `bypass` stay with their guard until nothing else is left to cut. What cannot be cut any further is refused
for good, and unknown.

What was refused is remembered (`Refusals`), and cut again in the plan of the next run before anything is asked.

Source: Modbus Application Protocol 1.1b3, 6.1–6.4 and 7 (exception 02).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from edge_agent.domain.plan import CellPlan, ReadBlock, SignalPlan, Table
from edge_agent.domain.readplan import CHANNEL_NAMES, COMPANY, atoms_of
from edge_agent.domain.units import BlockId, DeviceId


@dataclass(frozen=True, slots=True)
class RefusedSpan:
    """A request that its device has refused, as it was asked."""

    device: DeviceId
    table: Table
    start: int
    count: int
    poll_ms: int


@dataclass(frozen=True, slots=True)
class Refusals:
    """All refused requests of one configuration, in the order in which they were refused."""

    config_hash: str
    spans: tuple[RefusedSpan, ...]


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Addresses `start` to `end` (exclusive) that no cut may divide."""

    start: int
    end: int


def span_of(block: ReadBlock) -> RefusedSpan:
    """The request that `block` is."""
    return RefusedSpan(block.device, block.table, block.start, block.count, block.poll_ms)


def split(block: ReadBlock, signals: Sequence[SignalPlan], new_id: BlockId) -> tuple[ReadBlock, ...]:
    """The smaller requests that take the place of `block`; `(block,)` where there are none.

    `signals` are the whole plan's. The first part keeps the id, a second one gets `new_id`. One part alone reads less
    than before, since the block read more than its signals need.
    """
    clusters = _finest(block, signals)
    if len(clusters) == 1:
        return (_part(block, signals, clusters, block.id),)
    cut = _cut(clusters)
    return (
        _part(block, signals, clusters[:cut], block.id),
        _part(block, signals, clusters[cut:], new_id),
    )


def pieces(block: ReadBlock, signals: Sequence[SignalPlan]) -> tuple[ReadBlock, ...]:
    """What of `block` can be asked for alone, the outermost first: addresses are missing at an end more often than within."""
    clusters = _finest(block, signals)
    order = sorted(range(len(clusters)), key=lambda place: min(place, len(clusters) - 1 - place))
    found = (_part(block, signals, clusters[place : place + 1], block.id) for place in order)
    return tuple(piece for piece in found if piece.count < block.count)


def split_plan(plan: CellPlan, block: BlockId) -> CellPlan:
    """The plan with `block` split: a new part is the last of `blocks`, and follows the first in its device's list."""
    parts = split(plan.blocks[block], plan.signals, BlockId(len(plan.blocks)))
    blocks = [*plan.blocks, *parts[1:]]
    blocks[block] = parts[0]
    device = plan.devices[parts[0].device]
    own = list(device.blocks)
    own[own.index(block) + 1 : own.index(block) + 1] = [part.id for part in parts[1:]]
    devices = {**plan.devices, device.id: replace(device, blocks=tuple(own))}
    return replace(plan, blocks=tuple(blocks), devices=devices)


def split_refused(plan: CellPlan, spans: Iterable[RefusedSpan]) -> CellPlan:
    """The plan without the requests that are known to be refused; spans that it does not ask are passed over."""
    for span in spans:
        found = next((block.id for block in plan.blocks if span_of(block) == span), None)
        if found is not None:
            plan = split_plan(plan, found)
    return plan


def _finest(block: ReadBlock, signals: Sequence[SignalPlan]) -> list[_Cluster]:
    """What stays together; of a lone guard, its channels."""
    clusters = _clusters(block, signals, COMPANY)
    return clusters if len(clusters) > 1 else _clusters(block, signals, frozenset(CHANNEL_NAMES))


def _clusters(block: ReadBlock, signals: Sequence[SignalPlan], company: frozenset[str]) -> list[_Cluster]:
    """The block's atoms, those that overlap made one, lowest first."""
    clusters: list[_Cluster] = []
    for atom in atoms_of((signals[index] for index in block.signals), _fits, company):
        if clusters and atom.start < clusters[-1].end:
            clusters[-1] = _Cluster(clusters[-1].start, max(clusters[-1].end, atom.end))
        else:
            clusters.append(_Cluster(atom.start, atom.end))
    return clusters


def _fits(_start: int, _end: int) -> bool:
    """What one block holds fits into one."""
    return True


def _cut(clusters: Sequence[_Cluster]) -> int:
    """Before which cluster to cut: in the largest gap, and of equal ones in that nearest to the middle."""
    twice_middle = clusters[0].start + clusters[-1].end
    gaps = [
        (upper.start - lower.end, -abs(lower.end + upper.start - twice_middle), -place)
        for place, (lower, upper) in enumerate(pairwise(clusters), start=1)
    ]
    return -max(gaps)[2]


def _part(
    block: ReadBlock, signals: Sequence[SignalPlan], clusters: Sequence[_Cluster], part_id: BlockId
) -> ReadBlock:
    start, end = clusters[0].start, clusters[-1].end
    inside = tuple(index for index in block.signals if start <= signals[index].number < end)
    return replace(block, id=part_id, start=start, count=end - start, signals=inside)
