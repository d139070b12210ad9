"""What goes wrong in one run, drawn from its seed: each trouble is absent in half of the runs (swarm testing).

A run in which everything fails at once explores less than many runs in which different things fail: a trouble that
never pauses hides what only two others together can show. So every knob is first switched on or off, then set.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from simulators.draw import Draw


@dataclass(frozen=True, slots=True)
class Swarm:
    """The knobs. Shares are probabilities per message, read, send or commit; `every_s` mean pauses, 0 for never."""

    length_s: int
    poll_ms: int
    people: bool
    bus_latency_ms_max: int
    bus_fault_share: float
    bus_late_share: float
    bus_exception_share: float
    bus_short_share: float
    link_down_every_s: int
    net_latency_ms_max: int
    duplicate_share: float
    forget_share: float
    straggle_share: float
    lost_will_share: float
    receive_max: int
    cut_every_s: int
    silence_every_s: int
    partition_every_s: int
    broker_down_every_s: int
    broker_wipe_share: float
    stall_share: float
    agent_crash_every_s: int
    gateway_crash_every_s: int
    store_loss_share: float
    store_image_share: float
    reboot_share: float
    journal_loss_share: float
    journal_restore_share: float
    disk_full_every_s: int
    agent_drift_ppm: int
    wall_step_every_s: int
    gateway_step_every_s: int
    receiver_error_share: float
    receiver_unknown_share: float
    receiver_reject_share: float
    operator_every_s: int

    def __str__(self) -> str:
        """Every knob that is not off."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return " ".join(f"{name}={value}" for name, value in values.items() if value)


def calm(**troubles: float | bool) -> Swarm:
    """A run in which nothing goes wrong but what is named, for looking at one trouble alone."""
    nothing: dict[str, float | bool] = {item.name: 0 for item in fields(Swarm)}
    usual = {"length_s": 50, "poll_ms": 500, "people": False, "receive_max": 100}
    usual |= {"bus_latency_ms_max": 5, "net_latency_ms_max": 5}
    return Swarm(**(nothing | usual | troubles))  # type: ignore[arg-type]


def draw_swarm(draw: Draw) -> Swarm:
    """The knobs of one run."""

    def share(most: float) -> float:
        return round(most * draw.between(1, 100) / 100, 4) if draw.chance(0.5) else 0.0

    def every(low_s: int, high_s: int) -> int:
        return draw.between(low_s, high_s) if draw.chance(0.5) else 0

    return Swarm(
        length_s=draw.between(90, 240),
        poll_ms=draw.choice((250, 500, 1000)),
        people=draw.chance(0.3),
        bus_latency_ms_max=draw.choice((3, 8, 15)),
        bus_fault_share=share(0.03),
        bus_late_share=share(0.02),
        bus_exception_share=share(0.05),
        bus_short_share=share(0.02),
        link_down_every_s=every(60, 180),
        net_latency_ms_max=draw.choice((2, 20, 200)),
        duplicate_share=share(0.1),
        forget_share=share(0.04),
        straggle_share=share(1.0),
        lost_will_share=share(1.0),
        receive_max=draw.choice((5, 20, 1000)),
        cut_every_s=every(10, 60),
        silence_every_s=every(30, 120),
        partition_every_s=every(40, 120),
        broker_down_every_s=every(40, 120),
        broker_wipe_share=share(1.0),
        stall_share=share(0.01),
        agent_crash_every_s=every(20, 90),
        gateway_crash_every_s=every(20, 90),
        store_loss_share=share(0.3),
        store_image_share=share(0.3),
        reboot_share=share(1.0),
        journal_loss_share=share(0.2),
        journal_restore_share=share(0.4),
        disk_full_every_s=every(60, 180),
        agent_drift_ppm=draw.between(-100, 100),
        wall_step_every_s=every(20, 90),
        gateway_step_every_s=every(30, 90),
        receiver_error_share=share(0.5),
        receiver_unknown_share=share(0.3),
        receiver_reject_share=share(0.05),
        operator_every_s=every(5, 30),
    )
