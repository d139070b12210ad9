"""Checks of devices and machines that need no plan: links, times, areas, channels, motion sources.

Source: the outside contract, section 2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from edge_agent.configfile import Document, Problem
from edge_agent.domain.opening import TALLIES
from edge_agent.domain.plan import GuardKind
from edge_agent.domain.readplan import STALE_POLLS
from edge_agent.settings.link import BadUrl, parse_link
from edge_agent.settings.points import near_mend
from edge_agent.settings.schema import DeviceSection, HeartbeatSection
from edge_agent.settings.signals import MOTION_SOURCES
from edge_agent.settings.spot import Spot
from edge_agent.settings.wiring import WiredGuard, WiredMachine, all_guards

STALE_LEAST_MS: Final = 2000
"""Default staleness is not below this, so that a fast poll does not turn a switch-over of the network into an alarm."""


def stale_ms(device: DeviceSection) -> int:
    """A device's staleness as written, or its default."""
    if device.stale_ms is not None:
        return device.stale_ms
    return max(STALE_POLLS * device.poll_ms, STALE_LEAST_MS)


def written_keys(document: Document, key: str) -> list[str]:
    """The keys of a mapping as they stand in the file, whatever became of their values."""
    written = document.value((key,))
    return list(written) if isinstance(written, dict) else []


def links(
    document: Document, devices: Mapping[str, DeviceSection], problems: list[Problem]
) -> dict[str, str]:
    """The normalised URL of every device whose link can be read; adds what is wrong with links and times."""
    urls: dict[str, str] = {}
    for name, device in devices.items():
        spot = Spot(document, ("devices", name))
        problems += _time_problems(spot, device)
        try:
            link = parse_link(device.url)
        except BadUrl as bad:
            problems.append(spot.problem(f"`url`: {bad.what}", bad.mend, "url"))
            continue
        urls[name] = link.url
        if device.unit not in link.units:
            what = (
                f"`unit` is {device.unit}, but must be {link.units[0]} to {link.units[-1]} on {link.scheme}"
            )
            problems.append(spot.problem(what, "write the unit id that is set in the device", "unit"))
    return urls


def _time_problems(spot: Spot, device: DeviceSection) -> Iterator[Problem]:
    stale = stale_ms(device)
    if stale < 2 * device.poll_ms:
        what = (
            f"`stale_ms` is {stale}, less than two polls of {device.poll_ms} ms: good values would go stale"
        )
        yield spot.problem(what, f"write at least {2 * device.poll_ms}", "stale_ms")
    if stale <= device.timeout_ms:
        what = f"`timeout_ms` is {device.timeout_ms}, not below stale_ms of {stale}: one late reply would blind the guards"
        yield spot.problem(what, f"write less than {stale}", "timeout_ms")


def heartbeat_problems(spot: Spot, heartbeat: HeartbeatSection, poll_ms: int) -> Iterator[Problem]:
    """A heartbeat that stands still between two readings of it; `poll_ms` is how often it is read."""
    if heartbeat.stale_ms < 2 * poll_ms:
        what = f"`heartbeat`: {heartbeat.stale_ms} ms are less than two polls of {poll_ms} ms"
        yield spot.problem(what, f"write at least {2 * poll_ms}", "stale_ms")


def machine_problems(
    machines: Mapping[str, WiredMachine], areas: Collection[str] | None
) -> Iterator[Problem]:
    """What is wrong with machines and guards themselves; `areas` None: the file defines none."""
    for machine in machines.values():
        area = machine.section.area
        if area is not None and areas is not None and area not in areas:
            yield machine.spot.problem(f"there is no area {area}", near_mend(area, areas, "areas"), "area")
    for _, guard in all_guards(machines):
        if "ch_a" not in guard.channels and "ch_b" in guard.channels:
            wire = guard.channels["ch_b"]
            yield wire.spot.problem(f"the guard {guard.id} has ch_b without ch_a", "call it ch_a", "signal")
        elif not guard.channels and not _has_written_channels(guard):
            mend = "add channels: [{at: …}, {at: …}], or ch_a and ch_b in the point list"
            yield guard.spot.problem(f"the guard {guard.id} has no channels", mend, at_key=True)


def _has_written_channels(guard: WiredGuard) -> bool:
    """Whether the file gave channels that were cut out because of another problem."""
    return bool(guard.spot.document.value((*guard.spot.path, "channels")))


def machine_warnings(machines: Mapping[str, WiredMachine]) -> Iterator[Problem]:
    """What is legal, and yet probably not meant."""
    for machine in machines.values():
        if not any(name in machine.signals for name in MOTION_SOURCES):
            what = f"{machine.id} has no motion source: it gets no motion rules"
            yield machine.spot.problem(what, "wire running, zero_speed or speed", at_key=True)
        speed = machine.signals.get("speed")
        if speed is not None and speed.section.rated is None:
            what = "`speed` has no `rated`: any value but 0 counts as moving"
            yield speed.spot.problem(what, "add rated, in the unit of the scaled value", at_key=True)
    for _, guard in all_guards(machines):
        if all(name in guard.signals for name in TALLIES):
            what = f"{guard.id} has `open_count`, so its `opened_latch` is not judged"
            yield guard.signals["opened_latch"].spot.problem(what, "remove the latch", at_key=True)
        if guard.kind is GuardKind.LOCKED_DOOR and "locked" not in guard.signals:
            what = f"{guard.id} is a locked_door without `locked`: it is judged as a door without locking"
            yield guard.spot.problem(what, "wire the lock monitor", at_key=True)
