"""R29 `monitoring_lost`: a device cannot be seen; one alarm for it, whatever hangs on it.

Counted like HELD: raised when some source of the device (a block, the content of a signal, its heartbeat), be it now
this one, now that, has not been good for on_delay in all within the last window, so that a link that comes and goes is
told as well as one that is gone. Cleared when all have been good for off_delay. It is the parent of the raises on
unknown that its blindness causes; when it clears, those that are still open are unhidden. The guards it blinds stand in
the evidence; when they become more, that is told (`guards`).

P2 if a machine it feeds was last moving or a guard it feeds is judged by R01, else P3.

Source: the rule catalogue, R29, G8 and its settled reading (README, map of rules).
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.domain.device import DeviceWatch
from edge_agent.domain.evidence import GUARDS_LISTED_MAX, gather, guard_list
from edge_agent.domain.findings import Findings
from edge_agent.domain.machine import MachineWatch
from edge_agent.domain.occurrence import Occurrence, Place
from edge_agent.domain.plan import RulePlan
from edge_agent.domain.presence import PresenceCheck
from edge_agent.domain.quality import BlockState, Supply, age_ms
from edge_agent.domain.rule import MORE_GUARDS, RETURNED_TO_NORMAL, Found, Rule, at_most
from edge_agent.domain.signal import Signal
from edge_agent.domain.units import NS_PER_MS, MonoNs
from edge_agent.wire.event import Basis, Json, Priority, Quality

WINDOW_MS = 60_000
"""Default of `window_ms` (`window_s` in a configuration): time not good is added up over the last minute."""

SOURCES_MAX = 16
"""Sources named in evidence: beside 200 guards, the longest ids must still fit into one event."""


class BadTime:
    """How long something was bad within a sliding window, and when that will reach a limit."""

    __slots__ = ("_need_ns", "_past", "_since", "_window_ns")

    def __init__(self, need_ms: int, window_ms: int) -> None:
        self._need_ns = need_ms * NS_PER_MS
        self._window_ns = window_ms * NS_PER_MS
        self._past: list[tuple[MonoNs, MonoNs]] = []
        self._since: MonoNs | None = None

    def step(self, now: MonoNs, *, is_bad: bool) -> None:
        """What holds from `now` on."""
        if is_bad and self._since is None:
            self._since = now
        elif not is_bad and self._since is not None:
            self._past.append((self._since, now))
            self._since = None
        while self._past and self._past[0][1] <= now - self._window_ns:
            del self._past[0]

    def sum_ns(self, now: MonoNs) -> int:
        """Bad time within the window that ends now."""
        edge = now - self._window_ns
        total = 0 if self._since is None else now - max(self._since, edge)
        return total + sum(end - max(start, edge) for start, end in self._past)

    def first(self, now: MonoNs) -> MonoNs:
        """When the bad time within the window began."""
        begun = self._past[0][0] if self._past else self._since
        return now if begun is None else MonoNs(max(begun, now - self._window_ns))

    def reached_at(self, now: MonoNs) -> MonoNs | None:
        """When the sum reaches the limit if it stays bad; None while it is good.

        The sum grows while bad time enters the window, and stands still while as much leaves it at the other end:
        both are walked through exactly, so that a wake-up is never early twice.
        """
        if self._since is None:
            return None
        time, total = now, self.sum_ns(now)
        for start, end in self._past:
            leaves = MonoNs(start + self._window_ns)
            if total + max(0, leaves - time) >= self._need_ns:
                break
            total += max(0, leaves - time)
            time = max(time, MonoNs(end + self._window_ns))
        return MonoNs(time + max(0, self._need_ns - total))


class MonitoringLost(Rule):
    """Judges one device; `machines` are those it feeds, `children` the rules it can blind."""

    __slots__ = ("_bad", "_device", "_feeds_motion_rule", "_good_since", "_machines", "children")

    def __init__(
        self,
        plan: RulePlan,
        device: DeviceWatch,
        machines: Sequence[MachineWatch],
        findings: Findings,
        *,
        feeds_motion_rule: bool,
    ) -> None:
        self._device, self._machines = device, tuple(machines)
        super().__init__(plan, Place(None, None, device.plan.id), findings)
        self.blocks = device.blocks
        self.children: tuple[Rule, ...] = ()
        self._feeds_motion_rule = feeds_motion_rule
        self._bad = BadTime(plan.on_delay_ms, plan.parameters.get("window_ms", WINDOW_MS))
        self._good_since: MonoNs | None = None

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """Every signal of the device."""
        return self._device.inputs

    @property
    def heard(self) -> tuple[Signal, ...]:
        """Nothing: it reads qualities only, and steps with its device."""
        return ()

    def restore(self, occurrence: Occurrence) -> None:
        """Go on; its device's blindness hides raises again."""
        super().restore(occurrence)
        self._findings.monitoring[self._device.plan.id] = occurrence.id

    def step(self, now: MonoNs, *, sampled: bool) -> bool:  # noqa: ARG002 — counts time, not samples
        """Add up the time that it could not be seen."""
        is_bad = self._device.is_bad
        self._bad.step(now, is_bad=is_bad)
        self._account(now, known=True)
        self.due = None
        if is_bad or self.is_pending:
            self._good_since = None
        elif self._good_since is None:
            self._good_since = now
        if self.occurrence is None:
            self._judge_loss(now)
        else:
            self._judge_return(self.occurrence, now)
        return False

    def _judge_loss(self, now: MonoNs) -> None:
        reached_at = self._bad.reached_at(now)
        if reached_at is None or now < reached_at:
            self.due = reached_at
            return
        blinded = self._device.blinded()
        since = self._bad.first(now)
        held_ns = self._bad.sum_ns(now)
        self._raise(
            Found(since, now - since, self._priority(), Basis.PROVEN, held_ns, guard_list(blinded)), now
        )
        assert self.occurrence is not None
        self._list(self.occurrence, blinded)
        self._findings.monitoring[self._device.plan.id] = self.occurrence.id
        self.remember(now)

    def _judge_return(self, occurrence: Occurrence, now: MonoNs) -> None:
        blinded = self._device.blinded()
        listed = frozenset(occurrence.guards)
        has_more = len(blinded) > occurrence.guards_count or (
            occurrence.guards_count <= GUARDS_LISTED_MAX and any(path not in listed for path in blinded)
        )
        if has_more:
            blinded = tuple(dict.fromkeys((*occurrence.guards, *blinded)))
            self._list(occurrence, blinded)
            self._note_change(occurrence.priority, MORE_GUARDS, guard_list(blinded), now)
        if self._good_since is None:
            return
        over_at = MonoNs(self._good_since + self.plan.off_delay_ms * NS_PER_MS)
        if now < over_at:
            self.due = over_at
            return
        self._clear(RETURNED_TO_NORMAL, now)
        del self._findings.monitoring[self._device.plan.id]
        for child in self.children:
            child.unhide(occurrence.id, now)

    def _list(self, occurrence: Occurrence, blinded: Sequence[str]) -> None:
        occurrence.guards = tuple(blinded[:GUARDS_LISTED_MAX])
        occurrence.guards_count = len(blinded)

    def _priority(self) -> Priority:
        matters = self._feeds_motion_rule or any(machine.last_moving for machine in self._machines)
        return self.plan.priority if matters else at_most(self.plan.priority, Priority.P3)

    def _evidence(self, found: Found, now: MonoNs) -> dict[str, Json]:
        """Only what is not good stands in it: the rest of a whole device would say nothing."""
        bad = [signal for signal in self.inputs if not signal.is_good]
        content_bad = [signal for signal in bad if signal.block.supply is Supply.GOOD][:SOURCES_MAX]
        held = (found.held_min_ns, now - found.since)
        proofs = [check.signal for check in self._device.denied[:SOURCES_MAX]]
        evidence = gather(self.plan, [*proofs, *content_bad], now, held)
        evidence["grade"] = max((signal.plan.grade for signal in bad), default=self.grade_at_best).value
        lost = [block for block in self.blocks if block.supply is not Supply.GOOD][:SOURCES_MAX]
        ages: dict[str, Json] = {block.key: age_ms(block, now) for block in lost}
        sources: list[Json] = [_described(block) for block in lost]
        sources += [_denied(check) for check in self._device.denied[: SOURCES_MAX - len(sources)]]
        return {**evidence, "ages_ms": ages, "sources": sources, **found.further}


def _described(block: BlockState) -> Json:
    return {"block": block.key, "quality": block.quality.value, "reason": block.failure}


def _denied(check: PresenceCheck) -> Json:
    return {
        "presence": check.plan.name,
        "block": check.block.key,
        "quality": Quality.CONFIG_BAD.value,
        "reason": check.reason,
    }
