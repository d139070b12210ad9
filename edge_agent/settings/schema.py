"""File schema of the agent's configuration: every key, its range, its default and why it is that.

Source: the outside contract, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field

from edge_agent.configfile import Section, fault
from edge_agent.domain.plan import GuardKind
from edge_agent.domain.readplan import BITS_MAX, GAP_BITS_MAX, GAP_REGISTERS_MAX, REGISTERS_MAX
from edge_agent.settings.rules import DeviceRules, GuardRules, MachineRules
from edge_agent.settings.signals import GuardSignals, MachineSignals, PresenceSection, SignalSection
from edge_agent.wire.topics import ID_PATTERN

CONNECTIONS_MAX: Final = 4
"""Connections to one url: small controllers serve 4 to 8 clients in all, and others need some of them."""

LABEL_MAX_CHARS: Final = 80
"""Fits a board tile and an SMS; also bounds birth certificates."""


def _id(value: str) -> str:
    if not ID_PATTERN.fullmatch(value):
        raise fault(
            f'"{value[:60]}" is no id',
            "use 1 to 48 lower-case letters, digits and hyphens, not starting with a hyphen",
        )
    return value


def _label(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise fault("the text is blank or unprintable", "write the name that people use on the floor")
    return value


def _path(value: Path) -> Path:
    if "\0" in str(value):
        raise fault("no path holds a NUL", "write the path of a file")
    return value


def _kind(value: str) -> str:
    if not ID_PATTERN.fullmatch(value.replace("_", "-")):
        raise fault(
            f'"{value[:60]}" is no kind of machine', "use lower-case letters, digits, - and _, such as mixer"
        )
    return value


Id: TypeAlias = Annotated[str, AfterValidator(_id)]
Kind: TypeAlias = Annotated[str, AfterValidator(_kind)]
Label: TypeAlias = Annotated[str, Field(max_length=LABEL_MAX_CHARS), AfterValidator(_label)]


class Labels(Section):
    """A name in both languages of the board; each is required, since alarms go out in either."""

    zh: Label
    """Chinese."""
    en: Label
    """English."""


class AreaSection(Section):
    """An area of the site, for grouping on the board and routing alarms."""

    labels: Labels
    """Its name."""


class MqttSection(Section):
    """The broker, and how events are promised."""

    url: str
    """mqtt://HOST[:1883], mqtts://HOST[:8883], ws:// or wss://."""
    username: str | None = Field(default=None, min_length=1)
    """MQTT user name; the agent's own id by convention."""
    password_file: Path | None = None
    """File that holds the password, relative to this file."""
    password: str | None = Field(default=None, min_length=1)
    """Only as ${NAME} from the environment, never written out."""
    ca_file: Path | None = None
    """PEM of the authority that signed the broker's certificate; default: the system's."""
    cert_file: Path | None = None
    """PEM certificate of this agent, for mutual TLS."""
    key_file: Path | None = None
    """PEM key of `cert_file`."""
    delivery: Literal["gateway", "broker"] = "gateway"
    """gateway: nothing is forgotten before the gateway's ack. broker: the broker's PUBACK settles, without a gateway."""


class StoreSection(Section):
    """Outbox and evidence ledger."""

    path: Annotated[Path, AfterValidator(_path)]
    """File of the store, relative to this file."""
    size_max_mb: int = Field(default=512, ge=16, le=1_048_576)
    """Acked events are kept up to this size. Default 512: weeks of a large plant, and fits small flash disks."""


class HeartbeatSection(SignalSection):
    """A free-running counter in the PLC program: its standstill proves that data is frozen."""

    stale_ms: int = Field(default=5000, ge=100, le=3_600_000)
    """Unchanged this long, the device's data is frozen. Default 5000: counters often tick once a second."""


class CfgCrcSection(SignalSection):
    """Checksum of the safety program."""

    approved: int = Field(ge=0)
    """The approved value."""


class OpModeSection(SignalSection):
    """Operating mode of the controller; needs `map`."""

    run: tuple[str, ...] = Field(min_length=1, max_length=64)
    """Words of `map` that mean normal operation."""


MODULES_MAX: Final = 64
"""Modules of one device: as many as a coupler carries."""


class DeviceTraits(Section):
    """How a device is read and what it says about itself: a profile suggests it, the plant decides."""

    unit: int = Field(default=1, ge=0, le=255)
    """Unit id: 0–255 on TCP, 1–247 on RTU framing."""
    poll_ms: int = Field(default=200, ge=10, le=60_000)
    """Every signal is read this often. Default 200: half the shortest mechanical discrepancy time."""
    timeout_ms: int = Field(default=500, ge=20, le=60_000)
    """One request is given up after this. Default 500: slow couplers answer in 100, serial gateways in 300."""
    stale_ms: int | None = Field(default=None, ge=100, le=3_600_000)
    """Values are unknown this long after the request of their last good reply. Default max(3 × poll_ms, 2000)."""
    max_rps: int = Field(default=50, ge=1, le=1000)
    """Requests per second at most. Default 50: what small PLCs bear beside their work."""
    max_bits: int = Field(default=BITS_MAX, ge=1, le=BITS_MAX)
    """Coils or discrete inputs in one request at most. Default 2000, the protocol's; some devices refuse more than 256."""
    max_registers: int = Field(default=REGISTERS_MAX, ge=1, le=REGISTERS_MAX)
    """Registers in one request at most. Default 125, the protocol's; many couplers and drives take less."""
    gap_bits: int = Field(default=GAP_BITS_MAX, ge=0, le=BITS_MAX)
    """Unused bits read along to save a request. Default 64; 0 for a device that refuses addresses it has not."""
    gap_registers: int = Field(default=GAP_REGISTERS_MAX, ge=0, le=REGISTERS_MAX)
    """Unused registers read along to save a request. Default 8; 0 for a device that refuses addresses it has not."""
    pause_ms: int = Field(default=0, ge=0, le=10_000)
    """Rest before each further request. Default 0; old serial gateways and drives lose requests that follow at once."""
    connect_pause_ms: int = Field(default=0, ge=0, le=10_000)
    """Rest after connecting. Default 0; some gateways drop what comes before they have opened their serial side."""
    connections: int = Field(default=1, ge=1, le=CONNECTIONS_MAX)
    """Connections to this url, its units spread over them. Default 1: what every device serves."""
    heartbeat: HeartbeatSection | None = None
    """Optional free-running counter."""
    presence: dict[Id, PresenceSection] = Field(default={}, max_length=MODULES_MAX)
    """Proofs that it is there, for devices whose missing parts read as healthy: `device` covers all of it, any other
    name is a module that signals name by `module`. What is not proven present is unknown. Default none."""
    cfg_crc: CfgCrcSection | None = None
    """Optional checksum of the safety program."""
    op_mode: OpModeSection | None = None
    """Optional operating mode."""
    force_active: SignalSection | None = None
    """1 = a force is active in the PLC."""
    uptime_s: SignalSection | None = None
    """Seconds since the device started."""


class DeviceSection(DeviceTraits):
    """One Modbus device; devices with the same `url` share one link, one request in flight."""

    url: str
    """modbus+tcp://HOST[:502], modbus+tls://HOST[:802], modbus+rtuovertcp://HOST:PORT, modbus+rtu:///dev/ttyUSB0?baud=19200&parity=E."""
    ca_file: Path | None = None
    """modbus+tls: PEM of the authority that signed the device's certificate; default: the system's. Same for all devices of one url."""
    cert_file: Path | None = None
    """modbus+tls: PEM certificate of this agent, for mutual TLS. Same for all devices of one url."""
    key_file: Path | None = None
    """modbus+tls: PEM key of `cert_file`. Same for all devices of one url."""
    profile: str | None = Field(default=None, min_length=1, max_length=200)
    """What the device is: a name that `guardwatch-agent profiles` lists, or the path of a profile of your own (PATH.yaml,
    relative to this file). Points may then be named, DEVICE/POINT, and the profile's suggestions are the defaults here."""
    profile_base: int = Field(default=0, ge=0, le=65535)
    """Where the profile's block begins in this device, for profiles that can be moved. Default 0."""
    rules: DeviceRules = DeviceRules()  # type: ignore[valid-type]
    """Overrides of this device's rules."""


class GuardSection(GuardSignals):
    """One guard or protective device."""

    labels: Labels
    """Its name."""
    kind: GuardKind
    """Decides which rules it has."""
    channels: tuple[SignalSection, ...] = Field(default=(), max_length=2)
    """One or two contacts, 1 = closed; of two the guard is closed only when both say so."""
    lock_principle: Literal["power_to_release", "power_to_lock"] | None = None
    """What the solenoid does when powered."""
    series_chain: Id | None = None
    """Guards wired in one series chain say the same name here (fault masking, ISO 14119:2024 Annex J)."""
    design_stop_ms: int | None = Field(default=None, ge=1, le=600_000)
    """Stopping time that the safety distance was designed for; T_allow of a guard without locking."""
    demand_stop: bool = False
    """Opening is an accepted way to stop the machine."""
    rules: GuardRules = GuardRules()  # type: ignore[valid-type]
    """Overrides; the defaults come with the kind."""


class MachineSection(Section):
    """One machine and its guards."""

    labels: Labels
    """Its name."""
    area: Id | None = None
    """One of `areas`."""
    kind: Kind = "machine"
    """Chooses words and icons; rules follow from the signals."""
    rundown_s: float | None = Field(default=None, gt=0, le=3600)
    """From stop to standstill; without it and `zero_speed` nothing coasts."""
    manual_reset: bool = False
    """The machine must be reset by hand after a protective stop."""
    combustible_dust: bool = False
    """It stands in a zone of combustible dust."""
    belt_nominal: float | None = Field(default=None, gt=0)
    """Nominal speed, in the unit of `belt_speed`."""
    signals: MachineSignals = MachineSignals()
    """What is wired to the machine as a whole."""
    guards: Mapping[Id, GuardSection] = Field(default={})
    """Its guards, in board order."""
    rules: MachineRules = MachineRules()  # type: ignore[valid-type]
    """Overrides of the machine's own rules, and of `estop` and `pull_cord` for its shorthand signals."""


class AgentFile(Section):
    """The whole file."""

    site: Id
    """The site, a subsidiary (ISA-95)."""
    agent: Id
    """Unique on the broker."""
    labels: Labels
    """The agent's name."""
    site_labels: Labels | None = None
    """The site's name."""
    areas: dict[Id, AreaSection] | None = None
    """Areas of the site, in board order."""
    mqtt: MqttSection
    """The broker."""
    store: StoreSection
    """Outbox and evidence ledger."""
    state_report_s: int = Field(default=3600, ge=10, le=86_400)
    """A full state report this often: heals whatever was missed. Default hourly."""
    devices: dict[Id, DeviceSection] = Field(min_length=1)
    """The Modbus devices."""
    machines: dict[Id, MachineSection] = Field(min_length=1)
    """The machines, in board order."""
    signals_csv: Path | None = None
    """CSV beside this file with more signals: columns machine,guard,signal,at,type,scale,unit,invert."""
