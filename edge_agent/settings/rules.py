"""The rule catalogue as configuration sees it: names, defaults, parameters, and the sections that override them.

This is the one place for defaults. `JUDGED` are the rules that this version judges; the others are known by name and
parameters, so that a configuration written for them is accepted, checked and told that nothing judges them yet.

Source of names and defaults: the outside contract, section 2, and the README's map of rules (ISO 14119, ISO 13849-1,
ISO 13850, IEC 60204-1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from pydantic import Field, create_model

from edge_agent.configfile import Section
from edge_agent.domain.plan import RuleName
from edge_agent.wire.event import Priority

DELAY_MAX_MS: Final = 7 * 24 * 3600 * 1000
"""A week: longer delays are report periods, not alarm delays."""

HOLD_GAP_MS: Final = 10_000
"""How long a sum of held time outlives lost replies: five times the default staleness, so single losses never silence."""


class RuleOverride(Section):
    """What every rule takes; only what is written differs from the default of the guard's kind."""

    enabled: bool = True
    """False switches the rule off; `check` warns about it."""
    priority: Priority | None = None
    """P1 critical … P4 low."""
    on_delay_ms: int | None = Field(default=None, ge=0, le=DELAY_MAX_MS)
    """How long the condition must hold in all; 0 = the first good sample. For guard_open_motion: T_allow."""
    off_delay_ms: int | None = Field(default=None, ge=0, le=DELAY_MAX_MS)
    """How long the condition must be gone, by good data."""
    latch: bool | None = None
    """Whether the alarm stays until it is reset at the gateway."""
    unknown_delay_ms: int | None = Field(default=None, ge=0, le=DELAY_MAX_MS)
    """How long the dangerous reading cannot be excluded before it is raised as unknown (the U-raise)."""
    hold_gap_ms: int | None = Field(default=None, ge=0, le=DELAY_MAX_MS)
    """How long a held sum outlives lost replies."""


@dataclass(frozen=True, slots=True)
class KnownRule:
    """A rule of the catalogue: its short id and the names of its own parameters."""

    id: str
    parameters: tuple[str, ...] = ()


GUARD_RULES: Final[Mapping[str, KnownRule]] = {
    "guard_open_motion": KnownRule("R01", ("unknown_guard_delay_ms",)),
    "opened_while_moving": KnownRule("R02"),
    "unlocked_while_moving": KnownRule("R03"),
    "lock_cmd_mismatch": KnownRule("R04"),
    "start_with_guard_open": KnownRule("R05"),
    "guard_left_open": KnownRule("R08", ("p4_ms", "p3_ms")),
    "channel_discrepancy": KnownRule("R09"),
    "incomplete_cycle": KnownRule("R10"),
    "chattering_contact": KnownRule("R11", ("count", "window_s")),
    "interlock_not_cycled": KnownRule("R12", ("test_interval_s",)),
    "defeat_suspicion": KnownRule("R13"),
    "device_fault_warning": KnownRule("R14"),
    "bypass_active": KnownRule("R17", ("permitless_ms",)),
    "bypass_budget": KnownRule("R17b", ("budget_ms",)),
    "muting_abnormal": KnownRule("R18", ("sensor_gap_ms",)),
    "setup_motion_violation": KnownRule("R20"),
    "estop": KnownRule("R22", ("unreset_ms",)),
    "pull_cord": KnownRule("R23", ("still_moving_ms",)),
    "light_curtain_use": KnownRule("R24", ("blocked_ms",)),
}
MACHINE_RULES: Final[Mapping[str, KnownRule]] = {
    "restart_without_reset": KnownRule("R06"),
    "reset_anomaly": KnownRule("R07", ("held_ms", "count", "window_s")),
    "power_not_removed": KnownRule("R15", ("no_start_ms",)),
    "stopping_time_drift": KnownRule("R16"),
    "mode_key_left": KnownRule("R19", ("left_ms", "invalid_ms")),
    "setup_motion_violation": KnownRule("R20"),
    "conveyor_elevator_protection": KnownRule("R25", ("misalign_ms", "bearing_ms", "grace_ms")),
    "dust_extraction_interlock": KnownRule("R26", ("plant_ms",)),
    "dryer_burner_interlock": KnownRule("R27"),
    "estop": KnownRule("R22", ("unreset_ms",)),
    "pull_cord": KnownRule("R23", ("still_moving_ms",)),
}
"""A machine's own rules; `estop` and `pull_cord` here are for the guards that its shorthand signals make."""
DEVICE_RULES: Final[Mapping[str, KnownRule]] = {
    "device_fault_warning": KnownRule("R14"),
    "safety_config_changed": KnownRule("R21"),
    "monitoring_lost": KnownRule("R29", ("window_s",)),
}


def _section(name: str, rules: Mapping[str, KnownRule]) -> type[Section]:
    fields: dict[str, object] = {}
    for rule_name, rule in rules.items():
        own = {
            parameter: (
                int | None,
                Field(default=None, ge=0, le=DELAY_MAX_MS, description="A stage of its own."),
            )
            for parameter in rule.parameters
        }
        override = create_model(f"{name}_{rule_name}", __base__=RuleOverride, **own)  # type: ignore[call-overload]
        fields[rule_name] = (override | None, Field(default=None, description=f"{rule.id} {rule_name}"))
    return create_model(name, __base__=Section, **fields)  # type: ignore[call-overload,no-any-return]


GuardRules = _section("GuardRules", GUARD_RULES)
MachineRules = _section("MachineRules", MACHINE_RULES)
DeviceRules = _section("DeviceRules", DEVICE_RULES)


Scope: TypeAlias = Literal["guard", "device"]


@dataclass(frozen=True, slots=True)
class RuleDefaults:
    """Defaults of a rule that is judged, each with its reason in `why`. `on_delay_ms` None: it depends on the guard."""

    id: str
    scope: Scope
    priority: Priority
    on_delay_ms: int | None
    off_delay_ms: int
    latch: bool
    unknown_delay_ms: int | None
    parameters: Mapping[str, int] = field(default_factory=dict)
    when: str = ""
    why: str = ""


LOCKING_ALLOW_MS: Final = 300
"""A guard with locking must never be open while moving: one poll of jitter and the PLC's scan, no stopping time."""

STOP_ALLOW_MS: Final = 1000
"""Stopping time assumed where `design_stop_ms` does not say: longer raises late, shorter makes legal openings alarms."""

DISCREPANCY_MS: Final = 500
"""Mechanical contacts of one door may differ this long (ISO 13849-1 category 3: found before the next demand)."""

DISCREPANCY_ELECTRONIC_MS: Final = 200
"""Outputs of curtains and mats switch together."""

JUDGED: Final[Mapping[RuleName, RuleDefaults]] = {
    RuleName.GUARD_OPEN_MOTION: RuleDefaults(
        "R01",
        "guard",
        Priority.P1,
        None,
        2000,
        latch=True,
        unknown_delay_ms=5000,
        parameters={"unknown_guard_delay_ms": 10_000},
        when="doors, trapped keys, curtains and mats of a machine with a motion source",
        why=f"on_delay_ms is T_allow: {LOCKING_ALLOW_MS} with `locked`, else design_stop_ms or {STOP_ALLOW_MS}",
    ),
    RuleName.CHANNEL_DISCREPANCY: RuleDefaults(
        "R09",
        "guard",
        Priority.P2,
        None,
        0,
        latch=True,
        unknown_delay_ms=None,
        when="guards with two channels",
        why=f"on_delay_ms is {DISCREPANCY_MS} (curtains, mats {DISCREPANCY_ELECTRONIC_MS}), at least two polls",
    ),
    RuleName.BYPASS_ACTIVE: RuleDefaults(
        "R17",
        "guard",
        Priority.P1,
        1000,
        5000,
        latch=True,
        unknown_delay_ms=5000,
        parameters={"permitless_ms": 900_000},
        when="guards with `bypass`",
        why="P1 in AUTO while moving; P2 after permitless_ms without a wired permit",
    ),
    RuleName.ESTOP: RuleDefaults(
        "R22",
        "guard",
        Priority.P2,
        0,
        2000,
        latch=False,
        unknown_delay_ms=None,
        parameters={"unreset_ms": 1_800_000},
        when="E-stops",
        why="raised at the first good sample: a pressed E-stop needs no confirmation",
    ),
    RuleName.MONITORING_LOST: RuleDefaults(
        "R29",
        "device",
        Priority.P2,
        10_000,
        30_000,
        latch=False,
        unknown_delay_ms=None,
        parameters={"window_s": 60},
        when="every device",
        why="on_delay_ms counts not-good time within window_s, after stale_ms",
    ),
}
