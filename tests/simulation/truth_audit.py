"""What really happened against what was said: every real violation once, no false one, durations by no wall clock.

Real is what the plant's wires carried. From the log of served reads comes when an agent could know: a *view* is a
span in which it ran and never lost sight of a device. A violation that is seen, within one view, for longer than its
rule's delay and two polls in all, must be open from then on; one that is raised must be backed by good reads that show
its condition, the last one that denies it at least its delay ago. Between these
two bounds the product may do what it likes.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from edge_agent.domain.plan import GuardPlan, MachinePlan, RuleName, RulePlan
from edge_agent.wire.event import Basis, StateReport, ViolationCleared, ViolationRaised
from simulators.truth import Fact, overlaps
from tests.simulation.fieldbus import Plain, Served
from tests.simulation.findings import Check
from tests.simulation.views import Span, View, views_of
from tests.simulation.ward import MS, Said, Ward

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor

LINK_NS: Final = 1_300 * MS
"""What neighbours on a shared link may delay a poll by: two requests of silent ones that time out."""

BLUR_NS: Final = 2 * MS
"""Events carry whole milliseconds."""

OFF_NS: Final = 35_000 * MS
"""A duration may end with the first good sample, its clear comes after the off-delay: 30 s for a lost device."""

DISK_NS: Final = 3_000 * MS
"""What may pass between an observation and its commit."""

Key: TypeAlias = "tuple[str | None, str | None, str | None, str]"
"""Machine, guard, device, rule."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One occurrence as it was said: raised, and cleared (None: not by the store that raised it).

    An end that found no room is nowhere: when the next one is raised, it was at the latest when there was no room last.
    """

    key: Key
    occurrence: str
    raised_ns: int
    cleared_ns: int | None


def audit(auditor: Auditor, ward: Ward) -> None:
    """Judge what one agent said in a run that has healed."""
    opened = _replay(auditor, ward)
    views = {str(device): views_of(ward, device) for device in ward.plan.devices}
    for machine in ward.plan.machines.values():
        for guard in machine.guards:
            for rule in guard.rules:
                if rule.name in _REAL:
                    _audit_real(auditor, ward, (machine, guard, rule), views, opened)
    for said in ward.said:
        if isinstance(said.event.body, ViolationRaised):
            _audit_raise(auditor, ward, said, said.event.body)
    _audit_durations(auditor, ward)


def _replay(auditor: Auditor, ward: Ward) -> list[Opened]:
    """Occurrences with their spans; a second raise of what is open is a finding."""
    opened = _open_at_end(ward.bases[0])
    done: list[Opened] = []
    store = 0
    for said in ward.said:
        while store < said.store:  # another disk: it remembers what it held
            replaced_ns = ward.mishaps[store].at_ns
            store += 1
            done.extend(Opened(key, name, since, replaced_ns) for key, (name, since) in opened.items())
            opened = _open_at_end(ward.bases[store])
        match said.event.body:
            case ViolationRaised() as body:
                key = (body.machine, body.guard, body.device, body.rule)
                name, since = opened.get(key, ("", 0))
                ended_ns = ward.last_unwritten_ns(since, said.observed_ns)
                if name and ended_ns is None:
                    auditor.find(
                        Check.EVERY_REAL_VIOLATION_RAISED_ONCE,
                        f"{ward.name}: {body.occurrence} {key} is raised while {name} is open",
                    )
                elif name:
                    done.append(Opened(key, name, since, ended_ns))
            case ViolationCleared() as body:
                key = (body.machine, body.guard, body.device, body.rule)
                name, since = opened.get(key, (body.occurrence, 0))
                done.append(Opened(key, name, since, said.observed_ns))
            case _:
                pass
        _follow(opened, said)
    done.extend(Opened(key, name, since, None) for key, (name, since) in opened.items())
    return done


def _open_at_end(base: Sequence[Said]) -> dict[Key, tuple[str, int]]:
    """What a disk remembers to be open."""
    opened: dict[Key, tuple[str, int]] = {}
    for said in base:
        _follow(opened, said)
    return opened


def _follow(opened: dict[Key, tuple[str, int]], said: Said) -> None:
    """What is open after that. A raise that found no room is told by the next state report."""
    match said.event.body:
        case ViolationRaised() as body:
            opened[body.machine, body.guard, body.device, body.rule] = (body.occurrence, said.observed_ns)
        case ViolationCleared() as body:
            opened.pop((body.machine, body.guard, body.device, body.rule), None)
        case StateReport(open=listed):
            for item in listed:
                opened.setdefault(
                    (item.machine, item.guard, item.device, item.rule), (item.occurrence, said.observed_ns)
                )
        case _:
            pass


def _open_while_moving(auditor: Auditor, machine: str, guard: str) -> list[Span]:
    log = auditor.cell.log
    spans = overlaps(
        log.of(Fact(machine, guard, "indicated_closed"), value=False),
        log.of(Fact(machine, "", "moving"), value=True),
    )
    return _in_ns(auditor, spans)


def _pressed(auditor: Auditor, machine: str, guard: str) -> list[Span]:
    spans = auditor.cell.log.of(Fact(machine, guard, "indicated_closed"), value=False)
    return _in_ns(auditor, [(span.from_ms, span.until_ms) for span in spans])


def _in_ns(auditor: Auditor, spans: list[tuple[int, int | None]]) -> list[Span]:
    now_ms = auditor.now_ns // MS
    return [Span(start * MS, (now_ms if end is None else end) * MS) for start, end in spans]


_REAL: Final = {RuleName.GUARD_OPEN_MOTION: _open_while_moving, RuleName.ESTOP: _pressed}
"""Rules whose condition the plant's own log of truths tells."""


def _audit_real(
    auditor: Auditor,
    ward: Ward,
    place: tuple[MachinePlan, GuardPlan, RulePlan],
    views: dict[str, list[View]],
    opened: list[Opened],
) -> None:
    machine, guard, rule = place
    device = ward.plan.signals[guard.channels[0]].device
    key = (machine.id, guard.id, None, rule.name.value)
    poll_ms = ward.plan.devices[device].poll_ms
    need_ns = (rule.on_delay_ms + 2 * poll_ms) * MS + LINK_NS
    own = [item for item in opened if item.key == key]
    for real in _REAL[rule.name](auditor, machine.id, guard.id):
        for view in views[device]:
            due = view.proven_at(real, need_ns)
            if due is None or due >= view.end_ns or ward.is_unwritten(real.start_ns, due):
                continue
            is_open = any(
                item.raised_ns <= due and (item.cleared_ns is None or item.cleared_ns > due) for item in own
            )
            if not is_open:
                auditor.find(
                    Check.EVERY_REAL_VIOLATION_RAISED_ONCE,
                    f"{ward.name}: {guard.path} {rule.name}: real from {real.start_ns / MS:.0f} to {real.end_ns / MS:.0f} ms,"
                    f" not open at {due / MS:.0f} ms",
                )


# what is raised must be so


def _audit_raise(auditor: Auditor, ward: Ward, said: Said, body: ViolationRaised) -> None:
    if body.device is not None:
        _audit_lost(auditor, ward, said, body.device)
        return
    assert body.machine is not None
    assert body.guard is not None
    guard = next(item for item in ward.plan.machines[body.machine].guards if item.id == body.guard)  # type: ignore[index]
    rule = next(item for item in guard.rules if item.name.value == body.rule)
    device = ward.plan.signals[guard.channels[0]].device
    if body.basis is Basis.UNKNOWN:
        _audit_blind_raise(auditor, ward, said, rule, device)
        return
    supported, denied_ns = _find_support(ward, said, rule, (device, body.guard))
    what = f"{ward.name}: {body.occurrence} {guard.path} {body.rule} at {said.observed_ns / MS:.0f} ms"
    if not supported:
        auditor.find(Check.NO_FALSE_VIOLATION, f"{what}: no good read shows it")
    elif denied_ns is not None and said.observed_ns - denied_ns < rule.on_delay_ms * MS - BLUR_NS:
        auditor.find(Check.NO_FALSE_VIOLATION, f"{what}: a good read of {denied_ns / MS:.0f} ms denies it")


def _find_support(ward: Ward, said: Said, rule: RulePlan, place: tuple[str, str]) -> tuple[bool, int | None]:
    """Whether the last good read shows what is raised, and when the last one that denies it was asked for."""
    device, guard = place
    block = ward.door_block[device]
    lag_ns = ward.plan.devices[device].poll_ms * MS + LINK_NS  # type: ignore[index]
    reads = ward.served.of(device)
    supported: bool | None = None
    for index in range(_count_until(reads, said.observed_ns + BLUR_NS) - 1, -1, -1):
        read = reads[index]
        if not read.is_good or read.block != block:
            continue
        holds = read.plain is None or _holds(
            rule.name, read.plain, guard, is_moving=_is_moving(reads, index, read.requested_ns - lag_ns)
        )
        supported = holds if supported is None else supported
        if not holds and _is_vouched_for(ward, reads, index):
            return supported, read.requested_ns
        if said.observed_ns - read.requested_ns > rule.on_delay_ms * MS:
            break
    return bool(supported), None


def _is_vouched_for(ward: Ward, reads: Sequence[Served], index: int) -> bool:
    """Whether the controller's heartbeat had been read shortly before.

    After a gap in that, what is read before the counter has been seen to move is as unknown as in the gap: it may be old,
    and an unknown ends no violation that is being timed.
    """
    read = reads[index]
    device = ward.plan.devices[read.device]  # type: ignore[index]
    if device.heartbeat is None:
        return True
    homes = {block.id for block in ward.plan.blocks if device.heartbeat.signal in block.signals}
    since_ns = read.requested_ns - device.stale_ms * MS * 3 // 4
    earlier = itertools.takewhile(lambda other: other.ended_ns >= since_ns, reversed(reads[:index]))
    return any(other.is_good and other.block in homes and other.requested_ns >= since_ns for other in earlier)


def _is_moving(reads: Sequence[Served], until: int, since_ns: int) -> bool:
    """What tells motion may stand in another block, and be a poll old: moving is believed for as long."""
    for index in range(until, -1, -1):
        read = reads[index]
        if read.ended_ns < since_ns:
            return False
        if read.is_good and (read.plain is None or read.plain.is_moving):
            return True
    return False


def _count_until(reads: Sequence[Served], until_ns: int) -> int:
    """How many of the reads, which are in order of their ends, had ended by then."""
    return bisect_right(reads, until_ns, key=lambda read: read.ended_ns)


def _holds(rule: RuleName, plain: Plain, guard: str, *, is_moving: bool) -> bool:
    channels = plain.channels[guard]
    match rule:
        case RuleName.GUARD_OPEN_MOTION:
            return not all(channels) and is_moving
        case RuleName.CHANNEL_DISCREPANCY:
            return any(channels) and not all(channels)
        case RuleName.BYPASS_ACTIVE:
            return plain.bypassed[guard]
        case RuleName.ESTOP:
            return not all(channels)
        case other:
            raise AssertionError(other)


def _audit_blind_raise(auditor: Auditor, ward: Ward, said: Said, rule: RulePlan, device: str) -> None:
    """Raised because something could not be seen: then it was not seen for long enough."""
    assert rule.unknown_delay_ms is not None
    blind_ns = longest_blindness(ward, device, said.observed_ns)
    if blind_ns < rule.unknown_delay_ms * MS - BLUR_NS:
        auditor.find(
            Check.NO_FALSE_VIOLATION,
            f"{said.event.body} at {said.observed_ns / MS:.0f} ms: blind for {blind_ns / MS:.0f} ms only",
        )


def _audit_lost(auditor: Auditor, ward: Ward, said: Said, device: str) -> None:
    """R29: something of the device was not good for its delay, in all, within the last minute."""
    plan = ward.plan.devices[device]  # type: ignore[index]
    rule = next(item for item in plan.rules if item.name is RuleName.MONITORING_LOST)
    unseen_ns = unseen_within(ward, device, said.observed_ns, 60_000 * MS)
    if unseen_ns < rule.on_delay_ms * MS - LINK_NS:
        auditor.find(
            Check.NO_FALSE_VIOLATION,
            f"{device} is said to be lost at {said.observed_ns / MS:.0f} ms: unseen for {unseen_ns / MS:.0f} ms",
        )


def longest_blindness(ward: Ward, device: str, until_ns: int) -> int:
    """For how long, up to then, some block of the device had no live good read; a birth of the agent begins anew.

    A read that ended as the blindness was long enough, to the blur of an event's time, came after it.
    """
    reads = ward.served.of(device)
    newest: dict[int, int] = {}
    for read in reads[: _count_until(reads, until_ns - BLUR_NS)]:
        if read.plain is not None:
            newest[read.block] = read.requested_ns
    return until_ns - min(newest.values(), default=0)


def unseen_within(ward: Ward, device: str, until_ns: int, window_ns: int) -> int:
    """For how much of the window up to then the last live good read of some block was more than two polls ago, or was to be."""
    plan = ward.plan.devices[device]  # type: ignore[index]
    usual_ns = 2 * plan.poll_ms * MS
    reads = ward.served.of(device)
    last = {int(block): 0 for block in plan.blocks}
    blind: list[tuple[int, int]] = []

    def note(block: int, seen_ns: int) -> None:
        if seen_ns - last[block] > usual_ns:
            blind.append((last[block], seen_ns))
        last[block] = seen_ns

    for read in reads[: _count_until(reads, until_ns + BLUR_NS)]:
        if read.plain is not None:
            note(read.block, read.requested_ns)
    for block in last:
        note(block, until_ns)
    total_ns, counted_ns = 0, until_ns - window_ns
    for start_ns, end_ns in sorted(blind):
        total_ns += max(0, end_ns - max(start_ns, counted_ns))
        counted_ns = max(counted_ns, end_ns)
    return total_ns


def _audit_durations(auditor: Auditor, ward: Ward) -> None:
    """A duration is what really passed, whatever the wall clock did meanwhile."""
    raised: dict[str, Said] = {}
    slack_ms = (OFF_NS + DISK_NS + auditor.tolerance_ns) // MS
    for said in ward.said:
        match said.event.body:
            case ViolationRaised(occurrence=occurrence):
                raised[occurrence] = said
            case ViolationCleared() as body:
                begun = raised.get(body.occurrence)
                if begun is None or begun.event.boot != said.event.boot:
                    continue
                if _may_have_waited(ward, begun) or _may_have_waited(ward, said):
                    continue
                passed_ms = (said.at_ns - begun.at_ns) // MS
                if not passed_ms - slack_ms <= body.duration_max_ms <= passed_ms + slack_ms + _held_ms(begun):
                    auditor.find(
                        Check.WALL_JUMP_CHANGES_NO_DURATION,
                        f"{body.occurrence} {body.rule} is said to have lasted {body.duration_max_ms} ms at most,"
                        f" its raise and its clear are {passed_ms} ms apart",
                    )
            case _:
                pass


def _may_have_waited(ward: Ward, said: Said) -> bool:
    """Whether it may have waited for room on the disk."""
    return ward.is_unwritten(said.at_ns - DISK_NS, said.at_ns + DISK_NS)


def _held_ms(said: Said) -> int:
    """For how long the condition was held before it was raised."""
    assert isinstance(said.event.body, ViolationRaised)
    held_ms = said.event.body.evidence.get("held_max_ms", 0)
    assert isinstance(held_ms, int)
    return held_ms
