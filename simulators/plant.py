"""The stand-in plant: which machines and guards there are, and where each signal lies in their controllers' memory.

Three machines of a casting-sand line, each with a small PLC of its own that mirrors its safety signals for others to
read. All three answer on one TCP endpoint, as units 1 to 3 behind a gateway do. This map is the one place of its
addresses (0-based PDU addresses; `config/demo/agent.yaml` reads the same ones), alike in every unit:

    discrete inputs                                   holding registers
      0  1  channels A and B of the first guard         0  heartbeat, +1 every 100 ms while the program runs
      2  3  channels A and B of the second guard        1  map version
      4     run_fb: mirror contact of the contactor     7  mode: 0 auto, 1 setup, 2 maint, 3 local
      5     zero_speed: standstill monitor              8  reset_count
      6     safety_out: output of the safety relay     10  open_count of the first guard, 11 of the second
      7     edm_ok: contactor agrees with the output   27  cfg_crc
      8  9  E-stop, channels A and B
     10     locked (lock monitor)                     input registers
     11     lock_cmd (solenoid driven = release)       10  speed, 0.1 rpm
     12 13  bypass key of first and second guard       11  belt speed, 0.01 m/s
     14     reset button
     15     start button

A channel reads 1 = closed or healthy (ISO 13849-1's wired-live principle), a key or button 1 = on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DI_COUNT: Final = 32
HR_COUNT: Final = 32
IR_COUNT: Final = 16

DI_RUN_FB: Final = 4
DI_ZERO_SPEED: Final = 5
DI_SAFETY_OUT: Final = 6
DI_EDM_OK: Final = 7
DI_LOCKED: Final = 10
DI_LOCK_CMD: Final = 11
DI_RESET: Final = 14
DI_START: Final = 15
HR_HEARTBEAT: Final = 0
HR_MAP_VERSION: Final = 1
HR_MODE: Final = 7
HR_RESET_COUNT: Final = 8
HR_CFG_CRC: Final = 27
IR_SPEED: Final = 10
IR_BELT_SPEED: Final = 11

MAP_VERSION: Final = 1


class Mode(StrEnum):
    """Positions of a mode selector, in the order of their register values."""

    AUTO = "auto"
    SETUP = "setup"
    MAINT = "maint"
    LOCAL = "local"


MODE_VALUES: Final = {mode: value for value, mode in enumerate(Mode)}


class GuardKind(StrEnum):
    """Guard kinds, named as in the agent's configuration."""

    INTERLOCKED_DOOR = "interlocked_door"
    LOCKED_DOOR = "locked_door"
    LIGHT_CURTAIN = "light_curtain"
    PULL_CORD = "pull_cord"
    ESTOP = "estop"


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """One guard: its channels' discrete inputs, further signals where wired, and how its contacts behave.

    `skew_ms_max` bounds how long one channel follows the other; `bounce_max` how often a contact opens again while
    it closes (0 for semiconductor outputs).
    """

    id: str
    kind: GuardKind
    channels: tuple[int, ...]
    skew_ms_max: int
    bounce_max: int
    bypass_at: int | None = None
    open_count_at: int | None = None

    @property
    def has_lock(self) -> bool:
        """Whether a guard lock holds it."""
        return self.kind is GuardKind.LOCKED_DOOR


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine, its controller, and the dynamics of its drive. `belt_mm_s` is null where nothing is conveyed."""

    id: str
    device: str
    unit: int
    guards: tuple[GuardSpec, ...]
    rated_rpm: float
    runup_ms: int
    rundown_ms: int
    cfg_crc: int
    belt_mm_s: int | None = None


# Mechanical switches: two contacts of one door switch some tens of ms apart at hand speed, each bouncing a few ms.
DOOR_SKEW_MS_MAX: Final = 40
DOOR_BOUNCE_MAX: Final = 3
BUTTON_SKEW_MS_MAX: Final = 10  # two contact blocks on one E-stop plunger
OSSD_SKEW_MS_MAX: Final = 2  # both outputs of one curtain, from one processor


def _estop() -> GuardSpec:
    return GuardSpec("estop", GuardKind.ESTOP, (8, 9), BUTTON_SKEW_MS_MAX, DOOR_BOUNCE_MAX)


def _cord(number: int, at: int) -> GuardSpec:
    return GuardSpec(f"pullcord-{number}", GuardKind.PULL_CORD, (at,), 0, DOOR_BOUNCE_MAX)


PLANT: Final = (
    MachineSpec(
        id="mixer-18",
        device="plc-mixer",
        unit=1,
        rated_rpm=24.0,
        runup_ms=3_000,
        rundown_ms=12_000,  # a muller's loaded turret runs on for 5 to 120 s
        cfg_crc=0x5A18,
        guards=(
            GuardSpec(
                "door-1", GuardKind.INTERLOCKED_DOOR, (0, 1), DOOR_SKEW_MS_MAX, DOOR_BOUNCE_MAX, 12, 10
            ),
            GuardSpec("door-2", GuardKind.LOCKED_DOOR, (2, 3), DOOR_SKEW_MS_MAX, DOOR_BOUNCE_MAX, 13, 11),
            _estop(),
        ),
    ),
    MachineSpec(
        id="belt-03",
        device="plc-belt",
        unit=2,
        rated_rpm=60.0,
        runup_ms=2_000,
        rundown_ms=2_500,  # a loaded belt stops by itself within a few metres
        cfg_crc=0x5A03,
        belt_mm_s=1_600,
        guards=(_cord(1, 0), _cord(2, 2), _estop()),
    ),
    MachineSpec(
        id="palletiser-01",
        device="plc-palletiser",
        unit=3,
        rated_rpm=30.0,
        runup_ms=500,
        rundown_ms=350,  # braked: a light curtain needs a fast stop (ISO 13855)
        cfg_crc=0x5A01,
        guards=(
            GuardSpec("curtain-1", GuardKind.LIGHT_CURTAIN, (0, 1), OSSD_SKEW_MS_MAX, 0, 12, 10),
            _estop(),
        ),
    ),
)

MACHINES: Final = {machine.id: machine for machine in PLANT}
DEVICES: Final = {machine.device: machine for machine in PLANT}
GUARDS: Final = {(machine.id, guard.id): guard for machine in PLANT for guard in machine.guards}
