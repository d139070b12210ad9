"""What really happened against what was said: every real violation once, no false one, durations by no wall clock.

Real is what the plant's wires carried. From the log of served reads comes when an agent could know: a *clear view* of
a device is a span in which the agent ran and every read of the device was good, live and in time. A violation that
lasts, within one clear view, longer than its rule's delay and two polls must be open from then on; one that is raised
must be backed by good reads that show its condition, the last one that denies it at least its delay ago. Between these
two bounds the product may do what it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from edge_agent.domain.plan import GuardPlan, MachinePlan, RuleName, RulePlan
from edge_agent.wire.event import Basis, ViolationCleared, ViolationRaised
from simulators.truth import Fact, overlaps
from tests.simulation.fieldbus import Served
from tests.simulation.findings import Check

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor, Said

MS: Final = 1_000_000

LINK_NS: Final = 1_300 * MS
"""What neighbours on a shared link may delay a poll by: two requests of silent ones that time out."""

BLUR_NS: Final = 2 * MS
"""Events carry whole milliseconds."""

Key: TypeAlias = "tuple[str | None, str | None, str | None, str]"
"""Machine, guard, device, rule."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_ns` to `end_ns`, virtual time."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Opened:
    """One occurrence as it was said: raised, and cleared (None: not by the store that raised it)."""

    key: Key
    occurrence: str
    raised_ns: int
    cleared_ns: int | None


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed."""
    opened = _replay(auditor)
    views: dict[str, list[Span]] = {
        device: list(clear_views(auditor, device)) for device in auditor.plan.devices
    }
    for machine in auditor.plan.machines.values():
        for guard in machine.guards:
            for rule in guard.rules:
                if rule.name in _REAL:
                    _audit_real(auditor, machine, guard, rule, views, opened)
    for said in auditor.said:
        if isinstance(said.event.body, ViolationRaised):
            _audit_raise(auditor, said, said.event.body)
    _audit_durations(auditor)


def _replay(auditor: Auditor) -> list[Opened]:
    """Occurrences with their spans; a second raise of what is open is a finding."""
    opened: dict[Key, tuple[str, int]] = {}
    done: list[Opened] = []
    store = 0
    for said in auditor.said:
        if said.store != store:  # another disk: what the old one remembered is gone with it
            store = said.store
            done.extend(Opened(key, name, since, said.at_ns) for key, (name, since) in opened.items())
            opened.clear()
        match said.event.body:
            case ViolationRaised() as body:
                key = (body.machine, body.guard, body.device, body.rule)
                if key in opened:
                    auditor.find(
                        Check.EVERY_REAL_VIOLATION_RAISED_ONCE,
                        f"{body.occurrence} {key} is raised while {opened[key][0]} is open",
                    )
                opened[key] = (body.occurrence, said.observed_ns)
            case ViolationCleared() as body:
                key = (body.machine, body.guard, body.device, body.rule)
                name, since = opened.pop(key, (body.occurrence, 0))
                done.append(Opened(key, name, since, said.observed_ns))
            case _:
                pass
    done.extend(Opened(key, name, since, None) for key, (name, since) in opened.items())
    return done


def clear_views(auditor: Auditor, device: str) -> Iterator[Span]:
    """Spans in which an agent that ran, and could write, saw the device without a break."""
    poll_ns = auditor.plan.devices[auditor.plan.signals[0].device].poll_ms * MS
    lives = [*auditor.agent.lives, (auditor.agent.born_ns, auditor.now_ns)]
    births = iter(sorted(born for born, _ in lives))
    birth = next(births, None)
    start: int | None = None
    last = 0
    for read in auditor.served.reads:
        if read.device != device:
            continue
        was_reborn = False
        while birth is not None and birth <= read.requested_ns:
            birth, was_reborn = next(births, None), True
        is_unwritten = any(begun <= read.ended_ns <= ended for begun, ended in auditor.disk_full)
        is_late = read.ended_ns - last > poll_ns + LINK_NS
        is_broken = was_reborn or is_unwritten or is_late or read.plain is None
        if is_broken and start is not None:
            yield Span(start, last)
            start = None
        if read.plain is not None and start is None and not is_unwritten:
            start = read.ended_ns
        last = read.requested_ns
    if start is not None:
        yield Span(start, last)


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
    machine: MachinePlan,
    guard: GuardPlan,
    rule: RulePlan,
    views: dict[str, list[Span]],
    opened: list[Opened],
) -> None:
    device = auditor.plan.signals[guard.channels[0]].device
    key = (machine.id, guard.id, None, rule.name.value)
    poll_ms = auditor.plan.devices[device].poll_ms
    need_ns = (rule.on_delay_ms + 2 * poll_ms) * MS + LINK_NS
    own = [item for item in opened if item.key == key]
    for real in _REAL[rule.name](auditor, machine.id, guard.id):
        for view in views[device]:
            start, end = max(real.start_ns, view.start_ns), min(real.end_ns, view.end_ns)
            due = start + need_ns
            if due >= end:
                continue
            is_open = any(
                item.raised_ns <= due and (item.cleared_ns is None or item.cleared_ns > due) for item in own
            )
            if not is_open:
                auditor.find(
                    Check.EVERY_REAL_VIOLATION_RAISED_ONCE,
                    f"{guard.path} {rule.name}: real from {start / MS:.0f} to {end / MS:.0f} ms,"
                    f" not open at {due / MS:.0f} ms",
                )


# what is raised must be so


def _audit_raise(auditor: Auditor, said: Said, body: ViolationRaised) -> None:
    if body.device is not None:
        _audit_lost(auditor, said, body.device)
        return
    assert body.machine is not None
    assert body.guard is not None
    guard = next(item for item in auditor.plan.machines[body.machine].guards if item.id == body.guard)  # type: ignore[index]
    rule = next(item for item in guard.rules if item.name.value == body.rule)
    device = auditor.plan.signals[guard.channels[0]].device
    if body.basis is Basis.UNKNOWN:
        _audit_blind_raise(auditor, said, rule, device)
        return
    block = auditor._door_block[device]
    supported: bool | None = None
    denied_ns: int | None = None
    for read in reversed(auditor.served.reads):
        if (read.device, read.block) != (device, block) or read.ended_ns > said.observed_ns + BLUR_NS:
            continue
        if not read.is_good:
            continue
        holds = True if read.plain is None else _holds(rule.name, read, body.guard)
        supported = holds if supported is None else supported
        if not holds:
            denied_ns = read.requested_ns
            break
        if said.observed_ns - read.requested_ns > rule.on_delay_ms * MS:
            break
    if not supported:
        auditor.find(
            Check.NO_FALSE_VIOLATION,
            f"{body.occurrence} {guard.path} {body.rule} at {said.observed_ns / MS:.0f} ms: no good read shows it",
        )
    elif denied_ns is not None and said.observed_ns - denied_ns < rule.on_delay_ms * MS - BLUR_NS:
        auditor.find(
            Check.NO_FALSE_VIOLATION,
            f"{body.occurrence} {guard.path} {body.rule} at {said.observed_ns / MS:.0f} ms: a good read of"
            f" {denied_ns / MS:.0f} ms denies it",
        )


def _holds(rule: RuleName, read: Served, guard: str) -> bool:
    plain = read.plain
    assert plain is not None
    channels = plain.channels[guard]
    match rule:
        case RuleName.GUARD_OPEN_MOTION:
            return not all(channels) and plain.is_moving
        case RuleName.CHANNEL_DISCREPANCY:
            return any(channels) and not all(channels)
        case RuleName.BYPASS_ACTIVE:
            return plain.bypassed[guard]
        case RuleName.ESTOP:
            return not all(channels)
        case other:
            raise AssertionError(other)


def _audit_blind_raise(auditor: Auditor, said: Said, rule: RulePlan, device: str) -> None:
    """Raised because something could not be seen: then it was not seen for long enough."""
    assert rule.unknown_delay_ms is not None
    blind_ns = longest_blindness(auditor, device, said.observed_ns)
    if blind_ns < rule.unknown_delay_ms * MS - BLUR_NS:
        auditor.find(
            Check.NO_FALSE_VIOLATION,
            f"{said.event.body} at {said.observed_ns / MS:.0f} ms: blind for {blind_ns / MS:.0f} ms only",
        )


def _audit_lost(auditor: Auditor, said: Said, device: str) -> None:
    """R29: something of the device was not good for its delay, in all, within the last minute."""
    plan = auditor.plan.devices[device]  # type: ignore[index]
    rule = next(item for item in plan.rules if item.name is RuleName.MONITORING_LOST)
    unseen_ns = unseen_within(auditor, device, said.observed_ns, 60_000 * MS)
    if unseen_ns < rule.on_delay_ms * MS - LINK_NS:
        auditor.find(
            Check.NO_FALSE_VIOLATION,
            f"{device} is said to be lost at {said.observed_ns / MS:.0f} ms: unseen for {unseen_ns / MS:.0f} ms",
        )


def longest_blindness(auditor: Auditor, device: str, until_ns: int) -> int:
    """For how long, up to then, some block of the device had no live good read; a birth of the agent begins anew."""
    newest: dict[int, int] = {}
    for read in auditor.served.reads:
        if read.ended_ns > until_ns + BLUR_NS:
            break
        if read.device == device and read.plain is not None:
            newest[read.block] = read.requested_ns
    return until_ns - min(newest.values(), default=0)


def unseen_within(auditor: Auditor, device: str, until_ns: int, window_ns: int) -> int:
    """How much of the window up to then lies between live good reads of one block further apart than two polls."""
    plan = auditor.plan.devices[device]  # type: ignore[index]
    usual_ns = 2 * plan.poll_ms * MS
    worst = 0
    for block in plan.blocks:
        last, total = 0, 0
        for read in auditor.served.reads:
            if read.ended_ns > until_ns + BLUR_NS:
                break
            if (read.device, read.block) == (device, block) and read.plain is not None:
                total += _part(last, read.requested_ns, until_ns - window_ns, usual_ns)
                last = read.requested_ns
        total += _part(last, until_ns, until_ns - window_ns, usual_ns)
        worst = max(worst, total)
    return worst


def _part(start_ns: int, end_ns: int, edge_ns: int, usual_ns: int) -> int:
    return max(0, end_ns - max(start_ns, edge_ns)) if end_ns - start_ns > usual_ns else 0


def _audit_durations(auditor: Auditor) -> None:
    """A duration is measured on the monotonic clock: whatever the wall clock did meanwhile, it fits the two times."""
    raised: dict[str, Said] = {}
    for said in auditor.said:
        match said.event.body:
            case ViolationRaised(occurrence=occurrence):
                raised[occurrence] = said
            case ViolationCleared() as body:
                begun = raised.get(body.occurrence)
                if begun is None or begun.event.boot != said.event.boot:
                    continue
                assert isinstance(begun.event.body, ViolationRaised)
                held_ms = begun.event.body.evidence.get("held_max_ms", 0)
                assert isinstance(held_ms, int)
                told_ms = said.event.mono_ms - begun.event.mono_ms
                low, high = told_ms - 1_000, told_ms + held_ms + 61_000
                if body.rule != RuleName.MONITORING_LOST:
                    high = told_ms + held_ms + 15_000
                if not low - 40_000 <= body.duration_max_ms <= high or body.duration_ms < 0:
                    auditor.find(
                        Check.WALL_JUMP_CHANGES_NO_DURATION,
                        f"{body.occurrence} {body.rule} lasted {body.duration_ms} ms, raised and cleared"
                        f" {told_ms} ms apart",
                    )
            case _:
                pass
