"""One agent of a world: its machine, clocks and links, and what was seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edge_agent.domain.plan import CellPlan, Table
from edge_agent.wire.event import Event
from simulators.cell import Image
from tests.simulation.agent_node import AgentNode
from tests.simulation.clocks import NodeClock
from tests.simulation.fieldbus import BusWeather, Served, ServedLog
from tests.simulation.node import DiskWeather

MS = 1_000_000


Key: TypeAlias = "tuple[str, int]"
"""Epoch and seq."""


@dataclass(frozen=True, slots=True)
class Said:
    """An event as it was committed: when, when it says it was observed (virtual ns), and in which store."""

    event: Event
    at_ns: int
    observed_ns: int
    store: int


@dataclass(frozen=True, slots=True)
class Mishap:
    """A store that was replaced: when, and whether by an older image of itself."""

    at_ns: int
    by_image: bool


class Ward:
    """An agent under audit. `bases` holds, per store that it had, what that store held when it came."""

    def __init__(
        self,
        name: str,
        node: AgentNode,
        clock: NodeClock,
        disk: DiskWeather,
        bus: BusWeather,
        served: ServedLog,
    ) -> None:
        self.name = name
        self.node = node
        self.clock = clock
        self.disk = disk
        self.bus = bus
        self.served = served
        self.is_clone = False
        self.turn = asyncio.Lock()
        """Whoever stops and starts its process holds this."""
        self.said: list[Said] = []
        self.bases: list[tuple[Said, ...]] = [()]
        self.mishaps: list[Mishap] = []
        self.unreadable: set[Key] = set()
        """Events that were damaged on its disk, or pruned: nobody can send them any more."""
        self.unwritten: list[tuple[int, int]] = []
        """When its disk took nothing, or that of which it is an image: what it found then and died with is nowhere."""
        self.losses: list[int] = []
        """When something found no room in its store, or in the one that it is an image of."""
        self.image: tuple[Said, ...] = ()
        self._good_ns: dict[tuple[str, int], int] = {}
        self._live_ns: dict[str, int] = {}
        self._watched_ns: dict[str, int] = {}
        self._stopped: dict[tuple[str, int], Image | None] = {}
        self.door_block: dict[str, int] = {
            block.device: block.id for block in self.plan.blocks if block.table is Table.DISCRETE_INPUT
        }
        served.on_read = self._take

    @property
    def plan(self) -> CellPlan:
        """What it watches."""
        return self.node.plan

    @property
    def now_ns(self) -> int:
        """Virtual time."""
        return self.node.loop.now_ns

    # what happens to it

    def note_commit(self, events: Sequence[Event]) -> None:
        """Its store has these on disk."""
        for event in events:
            observed_ns = self.clock.virtual_ns(event.boot, event.mono_ms)
            at_ns = self.now_ns
            self.said.append(
                Said(event, at_ns, at_ns if observed_ns is None else observed_ns, len(self.bases) - 1)
            )

    def note_image(self) -> None:
        """An image of its store was taken."""
        self.image = self.held()

    def held(self) -> tuple[Said, ...]:
        """What its present store has ever held."""
        store = len(self.bases) - 1
        return (*self.bases[store], *(said for said in self.said if said.store == store))

    def note_store(self, base: tuple[Said, ...], *, by_image: bool) -> None:
        """Its disk was replaced by one that holds `base`."""
        self.bases.append(base)
        self.mishaps.append(Mishap(self.now_ns, by_image))

    def note_pruned(self, from_place: int, to_place: int) -> None:
        """The events at these places, counted from 1, the last one excluded, left its store."""
        pruned = self.held()[from_place - 1 : to_place - 1]
        self.unreadable.update((said.event.epoch, said.event.seq) for said in pruned)

    def went_with_a_disk(self, said: Said) -> bool:
        """Whether the event lay on a disk that was replaced, and not on the one that came."""
        return any(
            said.store <= store and said not in self.bases[store + 1]
            for store in range(said.store, len(self.mishaps))
        )

    def note_loss(self) -> None:
        """Something found no room."""
        self.losses.append(self.now_ns)

    def is_unwritten(self, from_ns: int, to_ns: int) -> bool:
        """Whether anything may have found no room in that time."""
        return self.last_unwritten_ns(from_ns, to_ns) is not None

    def last_unwritten_ns(self, from_ns: int, to_ns: int) -> int | None:
        """The last moment of that time at which anything may have found no room, None for never."""
        full = [min(end, to_ns) for start, end in self.unwritten if start <= to_ns and end >= from_ns]
        return max([*full, *(at for at in self.losses if from_ns <= at <= to_ns)], default=None)

    # what it was served

    def silent_ns(self, device: str) -> int:
        """How long ago its doors' last good read was asked for."""
        return self.now_ns - self._good_ns.get((device, self.door_block[device]), 0)

    def stopped_ns(self, device: str) -> int:
        """For how long the device's program is known to it, or could be, to stand still or be out of reach."""
        return self.now_ns - max(self._live_ns.get(device, 0), self._watched_ns.get(device, 0))

    def _take(self, read: Served) -> None:
        if not read.is_good:
            return
        block = (read.device, read.block)
        # A stopped counter is only known to stand while it is watched: after a gap that begins anew.
        gap_ns = read.requested_ns - self._good_ns.get(block, 0)
        is_reborn = self._good_ns.get(block, 0) < self.node.born_ns <= read.requested_ns
        if is_reborn or gap_ns > self.plan.devices[read.device].stale_ms * MS:  # type: ignore[index]
            self._watched_ns[read.device] = read.ended_ns
        self._good_ns[block] = read.requested_ns
        # one that stopped anew had run since the last good read: its counter has moved
        if read.stopped is None or read.stopped is not self._stopped.get(block):
            self._live_ns[read.device] = read.requested_ns
        self._stopped[block] = read.stopped
