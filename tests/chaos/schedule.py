"""What strikes when, drawn from seed and round number alone: the same two give the same round.

Two lanes run at once, so that faults overlap: one only kills, the other takes the round's faults one after the other.
The faults of a run are dealt out over its rounds, each kind as often as the others, in an order drawn from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.faults import (
    brokers,
    clocks,
    fieldbus,
    links,
    memory,
    power,
    processes,
    reloads,
    sieges,
    sinks,
    stores,
    versions,
)
from tests.chaos.faults.base import Fault, Need
from tests.chaos.faults.disks import DiskFull, ReadOnly

AGAIN_SHARE: Final = 0.2
"""Of kills that are followed by another one of the same part while it starts."""

VICTIMS: Final = {"agent": 3, "broker": 4, "gateway": 3}

FAULTS: Final[Mapping[str, Callable[[random.Random], Fault]]] = {
    "freeze": processes.Freeze,
    "hang": processes.HangUnderWatchdog,
    "agent-disk-full": lambda draw: DiskFull(draw, "agent"),
    "gateway-disk-full": lambda draw: DiskFull(draw, "gateway"),
    "broker-disk-full": lambda draw: DiskFull(draw, "broker"),
    "read-only": ReadOnly,
    "power-cut": power.PowerCut,
    "aborted-disk": power.AbortedDisk,
    "no-memory": memory.OutOfMemory,
    "siege": sieges.Siege,
    "bad-config": reloads.BadConfiguration,
    "version-before": versions.OtherVersion,
    "link-blink": links.LinkBlink,
    "link-down": links.LinkDown,
    "backlog": links.BacklogBehindCut,
    "one-way": links.OneWay,
    "packet-loss": links.PacketLoss,
    "slow-link": links.SlowLink,
    "spoilt-replies": fieldbus.SpoiltReplies,
    "refused-port": fieldbus.RefusedPort,
    "frozen-controller": fieldbus.FrozenController,
    "dead-neighbour": fieldbus.DeadNeighbour,
    "dead-controller": fieldbus.DeadController,
    "chatter": fieldbus.Chatter,
    "flood": fieldbus.Flood,
    "reconnect-storm": brokers.ReconnectStorm,
    "broker-kill-loop": brokers.KillLoop,
    "wiped-broker": brokers.WipedBroker,
    "retained-garbage": brokers.RetainedGarbage,
    "take-over": brokers.TakenOver,
    "poison": brokers.Poison,
    "clock-step": clocks.ClockStep,
    "other-boot": clocks.OtherBoot,
    "damaged-store": stores.DamagedStore,
    "lost-journal": stores.LostJournal,
    "rolled-back-journal": stores.RolledBackJournal,
    "restored-store": stores.RestoredStore,
    "cloned-agent": stores.ClonedAgent,
    "bad-mailbox": sinks.BadMailbox,
    "influx-away": sinks.InfluxAway,
}
"""By name, for `--rows` and schedules."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast things happen: between two kills on average, between two faults, and how long a fault lasts.

    `length_share` is the share of the range between a fault's least and greatest length that is drawn from.
    """

    kill_mean_s: float
    pause_s: tuple[float, float]
    length_share: float


FULL: Final = Pace(kill_mean_s=1.5, pause_s=(1.0, 5.0), length_share=1.0)
BRISK: Final = Pace(kill_mean_s=1.6, pause_s=(0.1, 0.5), length_share=0.0)


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault: so long after the one before it in its lane is over, it strikes, and lasts."""

    after_s: float
    fault: Fault
    lasts_s: float

    def __str__(self) -> str:
        return f"+{self.after_s:.2f} s {self.fault.name} for {self.lasts_s:.2f} s"


def kills(draw: random.Random, pace: Pace) -> Iterator[Strike]:
    """Kills without end."""
    while True:
        part = draw.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        yield _strike(draw, processes.Kill(draw, part), draw.expovariate(1 / pace.kill_mean_s), pace)
        while draw.random() < AGAIN_SHARE:
            yield _strike(draw, processes.Kill(draw, part), draw.uniform(0, 1.5), pace)


def others(draw: random.Random, names: Sequence[str], pace: Pace) -> Iterator[Strike]:
    """The round's faults, over and over."""
    while names:
        for name in names:
            yield _strike(draw, FAULTS[name](draw), draw.uniform(*pace.pause_s), pace)


def _strike(draw: random.Random, fault: Fault, after_s: float, pace: Pace) -> Strike:
    least_s, most_s = fault.lasts_s
    return Strike(after_s, fault, least_s + draw.random() * pace.length_share * (most_s - least_s))


def deal(seed: int, number: int, per_round: int, names: list[str]) -> list[str]:
    """The faults of one round: the next `per_round` of an endless sequence of shuffled decks."""
    first = number * per_round
    chosen = []
    for place in range(first, first + per_round):
        deck = sorted(names)
        random.Random(f"{seed}/deck/{place // len(deck)}").shuffle(deck)
        chosen.append(deck[place % len(deck)])
    return chosen


def needs_of(name: str) -> frozenset[Need]:
    """What a fault asks for."""
    return FAULTS[name](random.Random(0)).needs


def row_of(name: str) -> int:
    """The row of the fault matrix that a fault belongs to."""
    return FAULTS[name](random.Random(0)).row
