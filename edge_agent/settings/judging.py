"""Which rules judge a guard or a device, with every parameter resolved: defaults, then what the file overrides.

A rule that the file configures but nothing can judge is a mistake somebody would otherwise discover after the accident:
configuring a rule whose signals are not wired is an error, one that this version does not judge yet is a warning, and so
is a rule that was switched off.

Worst-case detection is poll + debounce + on-delay + poll + 50 ms: a change just after a sample is seen a poll later, a
held condition is confirmed at the first sample after its delay, and 50 ms cover request and reply.

Source: the outside contract, section 2; the README's map of rules.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.configfile import Problem
from edge_agent.domain.plan import GuardKind, RuleName, RulePlan, SignalPlan
from edge_agent.domain.readplan import CHANNEL_NAMES
from edge_agent.settings.rules import (
    DISCREPANCY_ELECTRONIC_MS,
    DISCREPANCY_MS,
    HOLD_GAP_MS,
    JUDGED,
    LOCKING_ALLOW_MS,
    STOP_ALLOW_MS,
    RuleDefaults,
    RuleOverride,
)
from edge_agent.settings.spot import Spot

ANSWER_MS: Final = 50
"""Request, reply and judging, in the published worst case (the outside contract, section 2)."""

MOTION_JUDGED_KINDS: Final = frozenset(
    {
        GuardKind.INTERLOCKED_DOOR,
        GuardKind.LOCKED_DOOR,
        GuardKind.TRAPPED_KEY,
        GuardKind.LIGHT_CURTAIN,
        GuardKind.SAFETY_MAT,
    }
)
"""Guards whose opening must stop the machine."""

ELECTRONIC_KINDS: Final = frozenset({GuardKind.LIGHT_CURTAIN, GuardKind.SAFETY_MAT})
"""Guards whose two outputs switch together."""

_NO_RULE_OF_ITS_OWN: Final = RuleOverride()


@dataclass(frozen=True, slots=True)
class GuardInputs:
    """The signals that a guard's rules read."""

    kind: GuardKind
    design_stop_ms: int | None
    channels: tuple[SignalPlan, ...]
    locked: SignalPlan | None
    bypass: SignalPlan | None
    motion: tuple[SignalPlan, ...]

    @property
    def alike(self) -> Hashable:
        """All that rules and their parameters depend on: two guards for which it is equal are judged alike."""
        channels, motion = (tuple(map(_timing, signals)) for signals in (self.channels, self.motion))
        locked, bypass = (signal and _timing(signal) for signal in (self.locked, self.bypass))
        return self.kind, self.design_stop_ms, channels, locked, bypass, motion


def _timing(signal: SignalPlan) -> tuple[object, ...]:
    return (
        signal.name,
        signal.coding.invert,
        signal.poll_ms,
        signal.coding.debounce_on_ms,
        signal.coding.debounce_off_ms,
    )


class Judging:
    """Resolves rules, and collects problems and warnings."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._of_alike: dict[Hashable, tuple[RulePlan, ...]] = {}
        self._equal: dict[tuple[RulePlan, ...], tuple[RulePlan, ...]] = {}

    def guard_rules(
        self, spot: Spot, inputs: GuardInputs, overrides: Mapping[str, RuleOverride]
    ) -> tuple[RulePlan, ...]:
        """The rules of one guard; `spot` is its rules section.

        Guards that are alike in all that rules depend on share one tuple: a plant has thousands of doors of few kinds.
        """
        if overrides:
            return self._guard_rules(spot, inputs, overrides)
        alike = inputs.alike
        rules = self._of_alike.get(alike)
        if rules is None:
            told = len(self.problems) + len(self.warnings)
            rules = self._guard_rules(spot, inputs, overrides)
            if told == len(self.problems) + len(self.warnings):  # else each is told where it stands
                self._of_alike[alike] = rules
        return rules

    def _guard_rules(
        self, spot: Spot, inputs: GuardInputs, overrides: Mapping[str, RuleOverride]
    ) -> tuple[RulePlan, ...]:
        self.warn_unjudged(spot, overrides)
        rules: list[RulePlan] = []
        for name in JUDGED:
            if JUDGED[name].scope != "guard":
                continue
            override = overrides.get(name.value)
            read, missing = _reads(name, inputs)
            if not read:
                if override is not None and override.enabled and missing:
                    what, mend = f"nothing can judge {name.value}: {missing}", "wire it, or remove this rule"
                    self.problems.append(spot.problem(what, mend, name.value, at_key=True))
                continue
            poll_ms = max(signal.poll_ms for signal in read)
            default_ms = _on_delay_ms(name, inputs, poll_ms)
            debounce_ms = max(_debounce_ms(name, signal) for signal in read)
            rule = self._rule(spot.at(name.value), name, override, default_ms)
            if rule is None:
                continue
            self._check_poll(spot.at(name.value), name, override, rule.on_delay_ms, poll_ms)
            if name is RuleName.CHANNEL_DISCREPANCY:
                self._check_debouncing(spot.at(name.value), inputs.channels, rule.on_delay_ms)
            rules.append(
                replace(rule, detect_ms=poll_ms + debounce_ms + rule.on_delay_ms + poll_ms + ANSWER_MS)
            )
        found = tuple(rules)
        return self._equal.setdefault(found, found)

    def device_rules(
        self, spot: Spot, poll_ms: int, stale_ms: int, overrides: Mapping[str, RuleOverride]
    ) -> tuple[RulePlan, ...]:
        """The rules of one device; not-good time starts to count when values are `stale_ms` old.

        `poll_ms` is that of its slowest request; `stale_ms` too, or that of a heartbeat that may stand for longer.
        """
        self.warn_unjudged(spot, overrides)
        name = RuleName.MONITORING_LOST
        rule = self._rule(spot.at(name.value), name, overrides.get(name.value), JUDGED[name].on_delay_ms or 0)
        if rule is None:
            return ()
        if rule.parameters["window_ms"] < rule.on_delay_ms:
            self.problems.append(
                spot.problem(
                    f"{name.value}: on_delay_ms is longer than its window",
                    "make window_s longer or on_delay_ms shorter",
                    name.value,
                )
            )
        return (replace(rule, detect_ms=stale_ms + rule.on_delay_ms + poll_ms + ANSWER_MS),)

    def warn_unjudged(self, spot: Spot, overrides: Mapping[str, RuleOverride]) -> None:
        """Say which overrides are for rules that this version does not judge."""
        judged = {name.value for name in JUDGED}
        for name in sorted(set(overrides) - judged):
            what, mend = f"{name} is not judged by this version", "nothing to do: it is kept for a later one"
            self.warnings.append(spot.problem(what, mend, name, at_key=True))

    def _rule(
        self, spot: Spot, name: RuleName, override: RuleOverride | None, default_ms: int
    ) -> RulePlan | None:
        """The rule with its parameters, or None where it is switched off; detection is filled in later."""
        defaults, given = JUDGED[name], override or _NO_RULE_OF_ITS_OWN
        if not given.enabled:
            what, mend = f"{name.value} is switched off here", "remove `enabled: false` to have it judged"
            self.warnings.append(spot.problem(what, mend, "enabled"))
            return None
        if given.unknown_delay_ms is not None and defaults.unknown_delay_ms is None:
            what = f"`unknown_delay_ms` has no meaning for {name.value}: what is unknown is told by monitoring_lost"
            self.problems.append(spot.problem(what, "remove it", "unknown_delay_ms", at_key=True))
        return RulePlan(
            name=name,
            priority=given.priority or defaults.priority,
            on_delay_ms=_first(given.on_delay_ms, default_ms),
            off_delay_ms=_first(given.off_delay_ms, defaults.off_delay_ms),
            unknown_delay_ms=_first_or_none(given.unknown_delay_ms, defaults.unknown_delay_ms),
            latch=defaults.latch if given.latch is None else given.latch,
            hold_gap_ms=_first(given.hold_gap_ms, HOLD_GAP_MS),
            parameters=_parameters(defaults, given),
            detect_ms=0,
        )

    def _check_poll(
        self, spot: Spot, name: RuleName, override: RuleOverride | None, on_delay_ms: int, poll_ms: int
    ) -> None:
        polls = 2 if name is RuleName.CHANNEL_DISCREPANCY else 1
        if on_delay_ms == 0:
            return
        if poll_ms > HOLD_GAP_MS:
            what = f"{name.value}: polls every {poll_ms} ms are longer than the {HOLD_GAP_MS} ms that one lost reply may take"
            mend = f"read its signals at least every {HOLD_GAP_MS} ms"
            self.problems.append(spot.problem(what, mend, at_key=True))
            return
        if on_delay_ms == poll_ms and name is RuleName.GUARD_OPEN_MOTION:
            what = f"{name.value}: polls every {poll_ms} ms are as long as its delay: a stop in time may look late"
            self.warnings.append(spot.problem(what, f"poll faster than every {on_delay_ms} ms", at_key=True))
            return
        if on_delay_ms >= polls * poll_ms:
            return
        if override is not None and override.on_delay_ms is not None:
            what = f"{name.value}: a delay of {on_delay_ms} ms is shorter than {polls * poll_ms} ms, which {polls} poll(s) take"
            self.problems.append(
                spot.problem(
                    what,
                    f"poll at least every {on_delay_ms // polls} ms, or write {polls * poll_ms}",
                    "on_delay_ms",
                )
            )
        else:
            what = f"{name.value}: polls every {poll_ms} ms are longer than its delay of {on_delay_ms} ms"
            self.warnings.append(spot.problem(what, f"poll every {on_delay_ms} ms or faster", at_key=True))

    def _check_debouncing(self, spot: Spot, channels: tuple[SignalPlan, ...], on_delay_ms: int) -> None:
        """Channels that move together must be accepted together."""
        times = [(item.coding.debounce_on_ms, item.coding.debounce_off_ms) for item in channels]
        apart_ms = max(max(edge) - min(edge) for edge in zip(*times, strict=True))
        if apart_ms >= on_delay_ms:
            what = f"the channels' debouncing differs by {apart_ms} ms: every opening or closing would look like a discrepancy"
            self.warnings.append(spot.problem(what, "debounce both alike", at_key=True))


def _reads(name: RuleName, inputs: GuardInputs) -> tuple[tuple[SignalPlan, ...], str]:
    """The signals that a rule reads of this guard; none, and what is missing, where it does not apply.

    Of a guard without channels nothing more is said: that is a problem of its own.
    """
    channels, none = inputs.channels, ()
    if not channels:
        return none, ""
    match name:
        case RuleName.GUARD_OPEN_MOTION if inputs.kind not in MOTION_JUDGED_KINDS:
            return none, f"it is not for guards of kind {inputs.kind.value}"
        case RuleName.GUARD_OPEN_MOTION if not inputs.motion:
            return none, "the machine has no running, zero_speed or speed"
        case RuleName.GUARD_OPEN_MOTION:
            return (*channels, *inputs.motion), ""
        case RuleName.CHANNEL_DISCREPANCY if len(channels) < 2:
            return none, "the guard has no second channel"
        case RuleName.BYPASS_ACTIVE if inputs.bypass is None:
            return none, "the guard has no `bypass`"
        case RuleName.BYPASS_ACTIVE if inputs.bypass is not None:
            return (inputs.bypass, *inputs.motion), ""
        case RuleName.ESTOP if inputs.kind is not GuardKind.ESTOP:
            return none, f"the guard's kind is {inputs.kind.value}"
        case RuleName.MONITORING_LOST:
            return none, "it stands under the device"
        case _:
            return channels, ""


def _debounce_ms(name: RuleName, signal: SignalPlan) -> int:
    """How long the change that the rule is about is debounced: a guard opens, a standstill ends, all else begins."""
    if name is RuleName.CHANNEL_DISCREPANCY:
        return max(signal.coding.debounce_on_ms, signal.coding.debounce_off_ms)
    ends = signal.name in (*CHANNEL_NAMES, "zero_speed")
    return signal.coding.debounce_off_ms if ends else signal.coding.debounce_on_ms


def _on_delay_ms(name: RuleName, inputs: GuardInputs, poll_ms: int) -> int:
    match name:
        case RuleName.GUARD_OPEN_MOTION if inputs.locked is not None:
            return LOCKING_ALLOW_MS
        case RuleName.GUARD_OPEN_MOTION:
            return inputs.design_stop_ms or STOP_ALLOW_MS
        case RuleName.CHANNEL_DISCREPANCY:
            floor = DISCREPANCY_ELECTRONIC_MS if inputs.kind in ELECTRONIC_KINDS else DISCREPANCY_MS
            return max(floor, 2 * poll_ms)
        case _:
            return JUDGED[name].on_delay_ms or 0


def _parameters(defaults: RuleDefaults, given: RuleOverride) -> dict[str, int]:
    """A rule's own parameters in milliseconds, whatever unit the file's key has."""
    found: dict[str, int] = {}
    for key, default in defaults.parameters.items():
        value = _first(getattr(given, key, None), default)
        if key.endswith("_s"):
            found[f"{key.removesuffix('_s')}_ms"] = value * 1000
        else:
            found[key] = value
    return found


def _first(given: int | None, default: int) -> int:
    return default if given is None else given


def _first_or_none(given: int | None, default: int | None) -> int | None:
    return default if given is None else given
