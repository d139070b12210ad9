"""File schema of signals: what every one takes, and which a machine, a guard and a device can have.

Polarity and names follow the outside contract, section 2: "_ok", "_locked" = 1 is the safe condition proven; "_active",
"_on", "_fb" = 1 is activity present. A field's annotation says what its value is: a bit, a number or a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, Field, field_validator

from edge_agent.configfile import Section, fault
from edge_agent.domain.plan import Endian, Grade, ValueType


class Meaning(Enum):
    """What kind of value a signal has."""

    BIT = auto()
    NUMBER = auto()
    WORD = auto()
    PROOF = auto()


DEBOUNCE_MAX_MS: Final = 60_000
"""Longer than any contact bounces; a longer one would hide openings."""

POLL_MIN_MS: Final = 10
"""Faster than any Modbus controller scans its inputs."""

POLL_MAX_MS: Final = 3_600_000
"""An hour: slower than that, a value is no live value."""

MAP_MAX: Final = 64
"""Entries in a map: more than any selector has positions."""


CODES_MAX: Final = 64
"""Codes in a list: more than any diagnostic byte has meanings for one state."""

ALL_ONES: Final = "all_ones"
"""As a sentinel: every bit of the raw value is 1, whatever its width."""

ALL_ZEROS: Final = "all_zeros"
"""As a sentinel: every bit of the raw value is 0."""


def _sentinel(value: int | str) -> int | str:
    if isinstance(value, str) and value not in (ALL_ONES, ALL_ZEROS):
        raise fault(f'"{value[:60]}" is no raw value', f"write a whole number, {ALL_ONES} or {ALL_ZEROS}")
    return value


Sentinel: TypeAlias = Annotated[int | str, AfterValidator(_sentinel)]
"""A raw value, or one of the two names."""

COUNTERS: Final = ("open_count", "reset_count")
"""Signals that only ever count up, by one, and wrap."""


class SignalSection(Section):
    """One point: where it is read, and how its raw content becomes a value."""

    at: str
    """DEVICE/TABLE/NUMBER[.BIT], 0-based PDU address; inside a device without DEVICE/."""
    type: ValueType | None = None
    """Type of a value in registers; bits need none. Default uint16."""
    invert: bool = False
    """For bits: the raw polarity is the other way round."""
    debounce_ms: int = Field(default=0, ge=0, le=DEBOUNCE_MAX_MS)
    """A change counts after it was stable this long. Default 0: PLC inputs are debounced already, and it delays detection."""
    debounce_on_ms: int | None = Field(default=None, ge=0, le=DEBOUNCE_MAX_MS)
    """Of a bit: 0 to 1 (a guard closes) counts after it was stable this long. Default `debounce_ms`."""
    debounce_off_ms: int | None = Field(default=None, ge=0, le=DEBOUNCE_MAX_MS)
    """Of a bit: 1 to 0 (a guard opens) counts after it was stable this long. Default `debounce_ms`; it delays detection."""
    poll_ms: int | None = Field(default=None, ge=POLL_MIN_MS, le=POLL_MAX_MS)
    """Read this often, for what is slower or faster than the rest. Default the device's; what one request must hold together goes at its fastest."""
    scale: float = 1.0
    """Value = raw × scale + offset."""
    offset: float = 0.0
    """Value = raw × scale + offset."""
    unit: str | None = Field(default=None, min_length=1, max_length=16)
    """Unit of the scaled value, such as rpm; `rated`, `limit`, `min`, `max` are in it."""
    mask: int | None = Field(default=None, ge=1, lt=1 << 64)
    """Only these bits of a whole register, shifted down to the lowest of them: 0x0F00 is a nibble of 0 to 15. Default all."""
    true_when: tuple[int, ...] = Field(default=(), max_length=CODES_MAX)
    """Makes a bit of a whole register or a masked field: raw values that mean 1. Without `false_when` all else is 0."""
    false_when: tuple[int, ...] = Field(default=(), max_length=CODES_MAX)
    """Raw values that mean 0; then what is in neither list is unknown."""
    map: Mapping[str, str] | None = Field(default=None, min_length=1, max_length=MAP_MAX)
    """Raw whole number → word, for modes; a raw value that is missing here is unknown."""
    rated: float | None = None
    """Nominal value; of `speed`: 2 % of it counts as moving."""
    limit: float | None = None
    """Permitted maximum; of `speed`: the safely limited speed in set-up."""
    min: float | None = None
    """Permitted minimum."""
    max: float | None = None
    """Permitted maximum of a range."""
    sentinel: tuple[Sentinel, ...] = Field(default=(), max_length=16)
    """Raw values by which the device says that it does not know; they are unknown. all_ones, all_zeros: by width."""
    counter_max: int | None = Field(default=None, ge=1, lt=1 << 64)
    """Of a counter: its highest value before it goes on from 0. Default the highest of its type, or of its mask."""
    module: str | None = Field(default=None, min_length=1, max_length=48)
    """Name in the device's `presence` of the module that this comes from: unknown unless that is proven present."""
    grade: Grade = Grade.C
    """Evidence: A safety channel itself, B separate auxiliary contact, C PLC-derived (the common case)."""
    word_order: Endian = Endian.BIG
    """Of values in several registers: big = most significant register first."""
    byte_order: Endian = Endian.BIG
    """Of the two bytes in a register: big as Modbus has it."""
    shared: bool = False
    """Say true on both sides where two signals are one bit on purpose (one E-stop for five machines)."""


class PresenceSection(Section):
    """What proves that a device, or a module of it, is there: content that only the real thing gives."""

    at: str
    """TABLE/NUMBER[.BIT] in this device, such as a type code, a status word or a configuration-valid bit."""
    type: ValueType | None = None
    """Type of a value in registers. Default uint16."""
    mask: int | None = Field(default=None, ge=1, lt=1 << 64)
    """Only these bits, shifted down to the lowest of them. Default all."""
    any_of: tuple[int, ...] = Field(default=(), max_length=CODES_MAX)
    """Present only with one of these raw values."""
    none_of: tuple[int, ...] = Field(default=(), max_length=CODES_MAX)
    """Not present with one of these raw values, such as 65535 where an absent module reads all ones."""
    word_order: Endian = Endian.BIG
    """Of values in several registers: big = most significant register first."""
    byte_order: Endian = Endian.BIG
    """Of the two bytes in a register: big as Modbus has it."""
    poll_ms: int | None = Field(default=None, ge=POLL_MIN_MS, le=POLL_MAX_MS)
    """Read this often. Default the device's poll_ms: what it covers may look healthy for that long after it has gone."""

    def as_signal(self) -> SignalSection:
        """The check as a coded bit: 1 = present."""
        given = self.model_fields_set & set(SignalSection.model_fields)
        said: dict[str, Any] = {key: getattr(self, key) for key in given}
        said |= {"true_when": self.any_of, "false_when": self.none_of}
        return SignalSection.model_construct(set(said), **said)


Bit: TypeAlias = Annotated[SignalSection | None, Meaning.BIT]
Number: TypeAlias = Annotated[SignalSection | None, Meaning.NUMBER]
Word: TypeAlias = Annotated[SignalSection | None, Meaning.WORD]


class MachineSignals(Section):
    """What is wired to a machine as a whole."""

    running: Bit = None
    """1 = contactor or drive reports running (run_fb). A motion source."""
    zero_speed: Bit = None
    """1 = standstill proven by a monitor. A motion source."""
    speed: Number = None
    """Drive or belt speed (drive_speed). A motion source; needs `rated`."""
    mode: Word = None
    """Selector: map raw values to auto, setup, maint, local. Unmapped is unknown and exempts from nothing."""
    safety_out: Bit = None
    """1 = the safety relay's output is on."""
    edm_ok: Bit = None
    """1 = the feedback loop agrees with the present output."""
    reset: Bit = None
    """1 = reset pressed."""
    reset_count: Number = None
    """Counter of resets in the PLC: catches pulses between polls."""
    start_cmd: Bit = None
    """1 = start commanded."""
    enabling: Bit = None
    """1 = enabling device in mid position."""
    hold_run: Bit = None
    """1 = hold-to-run control held."""
    estop_ok: Bit = None
    """1 = E-stop healthy, not pressed: shorthand for a guard `estop` of this machine."""
    pullcord_ok: tuple[SignalSection, ...] = Field(default=(), max_length=64)
    """1 = pull-cord switch healthy: shorthand for guards `pullcord-1`, `pullcord-2`, …"""
    curtain_ok: Bit = None
    """1 = light curtain free."""
    permit_setup: Bit = None
    """1 = set-up permitted by a wired permit."""
    permit_open: Bit = None
    """1 = work permit open, wired."""
    loto_open: Bit = None
    """1 = lock-out in force, wired."""
    last_stop_time_ms: Number = None
    """The PLC's own measurement of the last stop."""
    belt_speed: Number = None
    """Measured belt or elevator speed."""
    conveyor_run: Bit = None
    """1 = the conveyor that carries through a muted curtain runs."""
    misalign_ok: Bit = None
    """1 = belt aligned."""
    plug_ok: Bit = None
    """1 = chute free."""
    bearing_temp: Number = None
    """Bearing temperature."""
    ambient_temp: Number = None
    """Temperature that `bearing_temp` is compared with."""
    fan_fb: Bit = None
    """1 = extraction fan runs."""
    filter_dp: Number = None
    """Differential pressure over the filter; `min`, `max` bound it."""
    duct_flow_ok: Bit = None
    """1 = duct flow sufficient."""
    rotary_valve_fb: Bit = None
    """1 = rotary valve runs."""
    hopper_high: Bit = None
    """1 = dust hopper full."""
    hopper_temp: Number = None
    """Temperature in the dust hopper."""
    flame_on: Bit = None
    """1 = flame detected."""
    fuel_valve_open: Bit = None
    """1 = fuel valve open."""
    purge_done: Bit = None
    """1 = purge complete."""
    draught_ok: Bit = None
    """1 = draught sufficient."""
    drum_rot: Bit = None
    """1 = drum rotates."""


class GuardSignals(Section):
    """What may be wired to a guard beside its channels."""

    locked: Bit = None
    """1 = guard locked (guard_locked). A guard with this is judged as locking: it must never be open while moving."""
    bypass: Bit = None
    """1 = bypassed by key or software (bypass_active)."""
    lock_cmd: Bit = None
    """Solenoid drive; its meaning follows `lock_principle`."""
    muting_active: Bit = None
    """1 = curtain muted."""
    muting_lamp_ok: Bit = None
    """1 = muting lamp healthy."""
    mute_s1: Bit = None
    """1 = muting sensor 1 occupied."""
    mute_s2: Bit = None
    """1 = muting sensor 2 occupied."""
    mute_s3: Bit = None
    """1 = muting sensor 3 occupied."""
    mute_s4: Bit = None
    """1 = muting sensor 4 occupied."""
    dev_fault: Bit = None
    """1 = the device reports a fault."""
    dev_warn: Bit = None
    """1 = the device warns."""
    wrong_actuator: Bit = None
    """1 = a foreign actuator was presented."""
    marginal_range: Bit = None
    """1 = the actuator is at the edge of its range."""
    supply_warn: Bit = None
    """1 = supply voltage low."""
    shutdown_warn: Bit = None
    """1 = the device announces that it will switch itself off."""
    open_count: Number = None
    """Counter of openings in the PLC: catches those between polls."""
    opened_latch: Bit = None
    """1 = the PLC has seen an opening since it last cleared this latch: catches one between polls. `open_count` is better."""
    open_total_s: Number = None
    """Seconds open in all, counted in the PLC."""


def meanings(model: type[BaseModel]) -> Mapping[str, Meaning]:
    """The signals that a section can have, by name, with the kind of their values."""
    return {
        name: item
        for name, field in model.model_fields.items()
        for item in field.metadata
        if isinstance(item, Meaning)
    }


MACHINE_SIGNALS: Final = meanings(MachineSignals)
GUARD_SIGNALS: Final = meanings(GuardSignals)
MOTION_SOURCES: Final = ("running", "zero_speed", "speed")
MODE_WORDS: Final = ("auto", "setup", "maint", "local")

CSV_ALIASES: Final = {
    "run_fb": "running",
    "drive_speed": "speed",
    "guard_locked": "locked",
    "bypass_active": "bypass",
}
"""Long names that point lists use for the same signals."""


def _code(text: str) -> int | str:
    try:
        return int(text, 0)
    except ValueError:
        return text


class PointRow(SignalSection):
    """One row of a point list (`signals_csv`): whose signal it is, and the signal."""

    machine: str
    """The machine's id."""
    guard: str | None = None
    """The guard's id; empty for a machine's own signal."""
    signal: str
    """The signal's name as in the configuration; a guard's channels are ch_a and ch_b."""

    @field_validator("invert", mode="before")
    @classmethod
    def _spreadsheet_bool(cls, value: object) -> object:
        """A spreadsheet writes 0 and 1."""
        return bool(value) if value in (0, 1) else value

    @field_validator("true_when", "false_when", "sentinel", mode="before")
    @classmethod
    def _cell_of_codes(cls, value: object) -> object:
        """Several codes in one cell: `1 | 3`."""
        if not isinstance(value, str):
            return value
        return tuple(_code(part.strip()) for part in value.split("|"))

    @field_validator("map", mode="before")
    @classmethod
    def _cell_of_words(cls, value: object) -> object:
        """A map in one cell: `0=auto | 1=setup`."""
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split("|")]
        if not all(sign for _, sign, _ in pairs):
            raise fault(f'"{value[:60]}" is no map', "write 0=auto | 1=setup")
        return {raw.strip(): word.strip() for raw, _, word in pairs}

    def as_signal(self) -> SignalSection:
        """The signal alone, as it would stand in the configuration."""
        given = self.model_fields_set & set(SignalSection.model_fields)
        return SignalSection.model_construct(
            given, **{key: getattr(self, key) for key in SignalSection.model_fields}
        )


POINT_TEXT_COLUMNS: Final = frozenset(
    {
        *("machine", "guard", "signal", "at", "type", "unit", "grade", "word_order", "byte_order", "module"),
        *("true_when", "false_when", "sentinel", "map"),
    }
)
"""Columns of a point list that are text even where they look like numbers."""

POINT_COLUMN_ALIASES: Final = {
    "机器": "machine",
    "机台": "machine",
    "防护": "guard",
    "防护装置": "guard",
    "信号": "signal",
    "地址": "at",
    "类型": "type",
    "数据类型": "type",
    "系数": "scale",
    "比例": "scale",
    "偏移": "offset",
    "单位": "unit",
    "取反": "invert",
    "消抖": "debounce_ms",
    "额定": "rated",
}
"""Chinese names of a point list's columns."""
