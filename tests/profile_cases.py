"""One guard on each shipped profile: how it is wired, and how its device says closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simulators.profile_image import ProfileImage


@dataclass(frozen=True, eq=False)
class Case:
    """`channels` are the points (POINT or POINT.BIT) of a guard; `always` what the device says all the time."""

    profile: str
    channels: tuple[str, ...]
    base: int = 0
    always: Mapping[str, bool | float] = field(default_factory=dict)
    beat: str | None = None
    identity: str | None = None

    @property
    def machine(self) -> str:
        return f"at-{self.profile}"

    def prepare(self, image: ProfileImage) -> None:
        """A healthy device with a standing machine."""
        for name, value in self.always.items():
            image.set(name, value)

    def tick(self, image: ProfileImage, count: int) -> None:
        """Its program runs."""
        if self.beat is not None:
            image.set(self.beat, count % 65536)

    def set_guard(self, image: ProfileImage, *, closed: bool) -> None:
        for channel in self.channels:
            name, _, bit = channel.partition(".")
            if channel in image.cells:
                image.set(channel, closed)
            else:
                image.set(name, (1 << int(bit)) if closed else 0)


CASES = (
    Case("plc-block", ("g1_ch_a", "g1_ch_b"), 200, {"map_version": 1}, "heartbeat", "map_version"),
    Case("pilz-pnozmulti2", ("o0", "o1")),
    Case("banner-xs26", ("vo1", "vo2"), beat="seconds"),
    Case("banner-isd", ("d1_actuator",), 500),
    Case("sick-flexi-compact", ("result0.3",), 0, {"maker": 0x5349}, identity="maker"),
    Case("schneider-xpsmc", ("i1", "i2")),
    Case("schmersal-sd", ("s31_closed",), 1000),
    Case("wago-750", ("i0", "i1"), 0, {"marker": 0x1234}, identity="marker"),
    Case("beckhoff-bk", ("i0", "i9")),
    Case("siemens-s7-1200", ("DBX0.0", "DBX1.0")),
    Case("delta-dvp", ("X7", "X10")),
    Case("inovance-h5u", ("X7", "X10")),
)


def configuration(devices: Sequence[tuple[Case, str]], *, mqtt: str) -> str:
    """An agent with one device and one machine for each case; with each case the device's URL."""
    lines = [
        "site: plant",
        "agent: gw-01",
        "labels: {zh: 一号, en: One}",
        f'mqtt: {{url: "{mqtt}"}}',
        "store: {path: var/gw-01.db, size_max_mb: 64}",
        "devices:",
    ]
    for case, url in devices:
        base = f", profile_base: {case.base}" if case.base else ""
        lines.append(
            f'  {case.profile}: {{url: "{url}", profile: {case.profile}{base}, poll_ms: 500, max_rps: 50}}'
        )
    lines.append("machines:")
    for case, _ in devices:
        channels = ", ".join(f"{{at: {case.profile}/{point}}}" for point in case.channels)
        lines += [
            f"  {case.machine}:",
            "    labels: {zh: 机, en: Machine}",
            "    guards:",
            f"      door: {{labels: {{zh: 门, en: Door}}, kind: interlocked_door, channels: [{channels}]}}",
        ]
    return "\n".join(lines) + "\n"
