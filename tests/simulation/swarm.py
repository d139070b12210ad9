"""What goes wrong in one run, drawn from its seed: each trouble is absent in half of the runs (swarm testing).

A run in which everything fails at once explores less than many runs in which different things fail: a trouble that
never pauses hides what only two others together can show. So every knob is first switched on or off, then set.

Most runs are short. A mistake needs one unlucky moment, and a fresh start with other troubles gives more different
moments than the next minutes of the same ones; a few long runs remain for what needs time to build up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Final

from simulators.draw import Draw


@dataclass(frozen=True, slots=True)
class Swarm:
    """The knobs. Shares are probabilities per message, read, send or commit; `every_s` mean pauses, 0 for never."""

    # the plant
    length_s: int
    poll_ms: int
    machines: int
    agents: int
    people: bool
    # between agents and controllers
    bus_latency_ms_max: int
    bus_fault_share: float
    bus_late_share: float
    bus_exception_share: float
    bus_short_share: float
    link_down_every_s: int
    table_down_every_s: int
    # between agents and gateway
    net_latency_ms_max: int
    duplicate_share: float
    forget_share: float
    straggle_share: float
    lost_will_share: float
    receive_max: int
    broker_queue: int
    cut_every_s: int
    silence_every_s: int
    partition_every_s: int
    broker_down_every_s: int
    broker_wipe_share: float
    # agents
    stall_share: float
    agent_crash_every_s: int
    store_loss_share: float
    store_image_share: float
    store_damage_share: float
    store_scribble_share: float
    outbox_kb: int
    window_kb: int
    disk_full_every_s: int
    clone_every_s: int
    reboot_share: float
    unsynced_share: float
    agent_drift_ppm: int
    wall_step_every_s: int
    # the gateway
    gateway_crash_every_s: int
    journal_loss_share: float
    journal_restore_share: float
    journal_full_every_s: int
    gateway_step_every_s: int
    # who listens to it, and who acts on it
    receiver_error_share: float
    receiver_unknown_share: float
    receiver_reject_share: float
    historian_down_every_s: int
    historian_unknown_share: float
    historian_bad_share: float
    historian_strict: bool
    operator_every_s: int
    race_share: float

    def __str__(self) -> str:
        """Every knob that is not off."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return " ".join(f"{name}={value}" for name, value in values.items() if value)

    def troubles(self) -> list[str]:
        """The knobs that are on and could be off."""
        usual = calm()
        return [
            name for name in TROUBLES if getattr(self, name) and getattr(self, name) != getattr(usual, name)
        ]

    def without(self, names: Collection[str]) -> Swarm:
        """The same with these troubles off. Raises `ValueError` for a name that is none."""
        unknown = [name for name in names if name not in TROUBLES]
        if unknown:
            raise ValueError(f"no such trouble: {', '.join(unknown)}; there are {', '.join(TROUBLES)}")
        usual = calm()
        return replace(self, **{name: getattr(usual, name) for name in names})


_PLANT: Final = ("length_s", "poll_ms", "machines", "agents")

TROUBLES: Final = tuple(item.name for item in fields(Swarm) if item.name not in _PLANT)
"""What can be switched off to see whether a run fails without it."""


def calm(**troubles: float | bool) -> Swarm:
    """A run in which nothing goes wrong but what is named, for looking at one trouble alone."""
    nothing: dict[str, float | bool] = {item.name: 0 for item in fields(Swarm)}
    usual: dict[str, float | bool] = {"length_s": 50, "poll_ms": 500, "machines": 3, "agents": 1}
    usual |= {"people": False, "historian_strict": False, "receive_max": 100, "broker_queue": 1000}
    usual |= {"bus_latency_ms_max": 5, "net_latency_ms_max": 5}
    return Swarm(**(nothing | usual | troubles))  # type: ignore[arg-type]


def draw_swarm(seed: Draw) -> Swarm:
    """The knobs of one run. Each has a stream of its own: a new knob changes no run in which it is off."""

    def share(name: str, most: float) -> float:
        draw = seed.split(name)
        return round(most * draw.between(1, 100) / 100, 4) if draw.chance(0.5) else 0.0

    def every(name: str, low_s: int, high_s: int, chance: float = 0.5) -> int:
        draw = seed.split(name)
        return draw.between(low_s, high_s) if draw.chance(chance) else 0

    plant = seed.split("plant")
    machines = plant.choice((1, 1, 2, 2, 3))
    return Swarm(
        length_s=min(plant.between(15, 200), plant.between(15, 200)),
        poll_ms=plant.choice((250, 500, 1000)),
        machines=machines,
        agents=plant.between(1, machines),
        people=plant.chance(0.3),
        bus_latency_ms_max=plant.choice((3, 8, 15)),
        bus_fault_share=share("bus fault", 0.03),
        bus_late_share=share("bus late", 0.02),
        bus_exception_share=share("bus exception", 0.05),
        bus_short_share=share("bus short", 0.02),
        link_down_every_s=every("link down", 30, 120),
        table_down_every_s=every("table down", 30, 120),
        net_latency_ms_max=plant.choice((2, 20, 200)),
        duplicate_share=share("duplicate", 0.1),
        forget_share=share("forget", 0.04),
        straggle_share=share("straggle", 1.0),
        lost_will_share=share("lost will", 1.0),
        receive_max=plant.choice((5, 20, 1000)),
        broker_queue=plant.choice((20, 1000, 1000)),
        cut_every_s=every("cut", 10, 60),
        silence_every_s=every("silence", 20, 90),
        partition_every_s=every("partition", 20, 90),
        broker_down_every_s=every("broker down", 20, 90),
        broker_wipe_share=share("wipe", 1.0),
        stall_share=share("stall", 0.01),
        agent_crash_every_s=every("agent crash", 5, 50),
        store_loss_share=share("store loss", 0.5),
        store_image_share=share("store image", 0.7),
        store_damage_share=share("store damage", 1.0),
        store_scribble_share=share("store scribble", 0.3),
        outbox_kb=every("outbox", 8, 200, 0.25),
        window_kb=every("window", 60, 250, 0.3),
        disk_full_every_s=every("disk full", 30, 120),
        clone_every_s=every("clone", 30, 120, 0.2),
        reboot_share=share("reboot", 1.0),
        unsynced_share=share("unsynced", 1.0),
        agent_drift_ppm=plant.between(-100, 100),
        wall_step_every_s=every("wall step", 15, 60),
        gateway_crash_every_s=every("gateway crash", 5, 50),
        journal_loss_share=share("journal loss", 0.3),
        journal_restore_share=share("journal restore", 0.8),
        journal_full_every_s=every("journal full", 30, 120),
        gateway_step_every_s=every("gateway step", 20, 90),
        receiver_error_share=share("receiver error", 0.5),
        receiver_unknown_share=share("receiver unknown", 0.3),
        receiver_reject_share=share("receiver reject", 0.05),
        historian_down_every_s=every("historian down", 10, 60),
        historian_unknown_share=share("historian unknown", 0.2),
        historian_bad_share=share("historian bad", 0.02),
        historian_strict=seed.split("historian strict").chance(0.5),
        operator_every_s=every("operator", 2, 20),
        race_share=share("race", 1.0),
    )
