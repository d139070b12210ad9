"""Every shipped profile both ways: the stand-in encodes a point by its own reading of the profile, over real Modbus/TCP,
and the agent's plan and decoder give back what was meant.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.app.links import Reach, opened, tool_link
from edge_agent.configfile import Document, parse
from edge_agent.domain.decode import Value, compile_decoder
from edge_agent.domain.plan import CellPlan, ReadBlock, SignalPlan, ValueType
from edge_agent.domain.readplan import ReadLimits, plan_reads
from edge_agent.domain.units import DeviceId, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from edge_agent.ports import BlockOk
from edge_agent.settings import AgentSettings, compile_settings
from edge_agent.settings.points import Owner, Points
from edge_agent.settings.profile import Profile, load_profile, shipped_profiles
from edge_agent.settings.profile_points import Family
from edge_agent.settings.profile_schema import Numbering
from edge_agent.settings.profile_use import Profiles
from edge_agent.settings.schema import DeviceSection
from edge_agent.settings.signals import Meaning, SignalSection
from edge_agent.settings.spot import Spot
from edge_agent.wire.event import GuardState
from simulators.modbus_server import RegisterBankServer
from simulators.profile_image import ProfileImage, profile_folder
from tests.profile_cases import CASES, Case, configuration

pytestmark = pytest.mark.thorough

SHIPPED = shipped_profiles()
PATIENT_MS = 5000
SEED = 20_261_122
WALL = WallPair(MonoNs(0), UtcNs(0), synced=True)
LIMITS = ReadLimits(poll_ms=200, stale_ms=2000)


def image_of(profile: str, base: int = 0) -> ProfileImage:
    return ProfileImage(profile_folder() / f"{profile}.yaml", base=base)


def meaning_of(family: Family) -> Meaning:
    section, at = family.section, family.spans[0].at
    if section.map is not None:
        return Meaning.WORD
    return Meaning.BIT if at.table.is_bits or at.bit is not None or section.true_when else Meaning.NUMBER


def some_value(family: Family, draw: random.Random) -> bool | float | str:
    """Something that the point can say."""
    section = family.section
    match meaning_of(family):
        case Meaning.WORD:
            assert section.map is not None
            return draw.choice(list(section.map.values()))
        case Meaning.NUMBER:
            if section.mask is not None:
                return draw.randrange((section.mask // (section.mask & -section.mask)) + 1)
            if section.type is ValueType.INT16:
                return draw.randrange(-32768, 32768)
            return draw.randrange(1 << 16 * (section.type or ValueType.UINT16).registers)
        case _:
            return draw.random() < 0.5


def apart(family: Family) -> list[list[str]]:
    """Its names in parts that do not overlap: DBD0 and DBD2 share a register."""
    names = list(family.names())
    if family.section.numbering is not Numbering.BYTES:
        return [names]
    width = (family.section.type or ValueType.UINT16).registers
    return [names[first::width] for first in range(width)]


def signals_of(profile: str, names: Sequence[str], meaning: Meaning) -> list[SignalPlan]:
    """The agent's signals at these points of a device `d`, one each."""
    document = parse(b"devices: {d: {}}", "agent.yaml", {})
    assert isinstance(document, Document)
    devices = {"d": DeviceSection(url="modbus+tcp://192.0.2.1", profile=profile)}
    profiles = Profiles(document, devices)
    points = Points(devices, {"d": 200}, profiles)
    for name in names:
        section = SignalSection(at=f"d/{name}", poll_ms=200)
        assert points.add(Spot(document, ()), section, "mode", meaning, Owner()) is not None
    assert not [*points.problems, *profiles.problems]
    return points.signals


async def read_all(url: str, blocks: Sequence[ReadBlock]) -> list[bytes]:
    async with opened(tool_link(Reach(url), PATIENT_MS)) as link:
        found = []
        for block in blocks:
            outcome = await link.read(1, block, PATIENT_MS)
            assert isinstance(outcome, BlockOk), (block, outcome)
            found.append(outcome.data)
        return found


async def read_back(url: str, signals: list[SignalPlan]) -> list[Value]:
    """The values of the signals as the agent reads and decodes them, in their order."""
    blocks = plan_reads(signals, {DeviceId("d"): LIMITS})
    values: dict[int, Value] = {}
    for block, data in zip(blocks, await read_all(url, blocks), strict=True):
        values.update(zip(block.signals, compile_decoder(block, signals).decode_all(data), strict=True))
    return [values[index] for index in range(len(signals))]


@pytest.mark.parametrize("name", SHIPPED)
async def test_every_point_is_read_as_the_device_means_it(name: str) -> None:
    profile = load_profile(SHIPPED[name])
    assert isinstance(profile, Profile)
    draw = random.Random(SEED)
    seen = 0
    image = image_of(name)
    async with RegisterBankServer(image.bank) as server:
        url = f"modbus+tcp://127.0.0.1:{server.address[1]}"
        for family in profile.names.families:
            for names in apart(family):
                meant = {point: some_value(family, draw) for point in names}
                for point, value in meant.items():
                    image.set(point, value)
                signals = signals_of(name, names, meaning_of(family))
                assert dict(zip(names, await read_back(url, signals), strict=True)) == meant, family.key
                seen += len(names)
        assert server.writes_refused == 0
    assert seen == len(image.cells), "the stand-in and the agent know the same points"


OWN = """\
id: own
labels: {zh: 自制, en: Own}
vendor: us
products: [box]
source: [a drawing]
points:
"""
ORDERS = [(word, byte) for word in ("big", "little") for byte in ("big", "little")]
VALUES: dict[str, float] = {
    "uint16": 0xFE01,
    "int16": -2,
    "uint32": 0xFEDCBA98,
    "int32": -123_456_789,
    "float32": -0.15625,
    "uint64": 0xFEDCBA9876543210,
    "int64": -(1 << 40) - 7,
    "float64": 1234.0625,
}


async def test_values_of_every_type_and_order_are_read_as_meant(tmp_path: Path) -> None:
    """No shipped product needs them all; a plant's own may."""
    points = {
        f"{kind}_{word}_{byte}": f"type: {kind}, word_order: {word}, byte_order: {byte}"
        for kind in VALUES
        for word, byte in ORDERS
    }
    text = "".join(
        f"  {name}: {{at: hr/{8 * place}, labels: {{zh: 值, en: Value}}, {more}}}\n"
        for place, (name, more) in enumerate(points.items())
    )
    path = tmp_path / "own.yaml"
    path.write_text(OWN + text, encoding="utf-8")
    image = ProfileImage(path)
    meant = {name: VALUES[name.partition("_")[0]] for name in points}
    for name, value in meant.items():
        image.set(name, value)
    async with RegisterBankServer(image.bank) as server:
        url = f"modbus+tcp://127.0.0.1:{server.address[1]}"
        read = await read_back(url, signals_of(str(path), list(points), Meaning.NUMBER))
    assert dict(zip(points, read, strict=True)) == meant


async def test_coded_and_inverted_points_and_scaled_fields_are_read_as_meant(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        OWN
        + "  coded: {at: hr/0, mask: 0x0F00, true_when: [3, 5], labels: {zh: 码, en: Coded}}\n"
        + "  certain: {at: hr/0, mask: 0x000F, true_when: [9], false_when: [6], labels: {zh: 码, en: Certain}}\n"
        + "  turned: {at: hr/1.4, invert: true, labels: {zh: 反, en: Turned}}\n"
        + "  level: {at: hr/2, mask: 0x0FF0, scale: 0.5, offset: -10, labels: {zh: 量, en: Level}}\n",
        encoding="utf-8",
    )
    image = ProfileImage(path)
    bits = ["coded", "certain", "turned"]
    async with RegisterBankServer(image.bank) as server:
        url = f"modbus+tcp://127.0.0.1:{server.address[1]}"
        for truth in (True, False, True):
            for name in bits:
                image.set(name, truth)
            image.set("level", 4.5 if truth else -10)
            assert await read_back(url, signals_of(str(path), bits, Meaning.BIT)) == [truth] * 3
            (level,) = await read_back(url, signals_of(str(path), ["level"], Meaning.NUMBER))
            assert level == (4.5 if truth else -10)
        image.set_all_ones("certain")
        assert await read_back(url, signals_of(str(path), ["certain"], Meaning.BIT)) == [None]


async def test_a_point_that_is_read_one_place_off_is_noticed() -> None:
    """The comparison can fail: the stand-in's block begins one register later than the agent's."""
    image = image_of("plc-block", 1)
    image.set("speed", 77)
    async with RegisterBankServer(image.bank) as server:
        url = f"modbus+tcp://127.0.0.1:{server.address[1]}"
        assert await read_back(url, signals_of("plc-block", ["speed"], Meaning.NUMBER)) == [0]


@dataclass
class Station:
    """One device by its profile, and an engine that watches its guard."""

    case: Case
    image: ProfileImage
    plan: CellPlan
    engine: EdgeEngine
    url: str
    now_ms: int = 0

    async def poll(self) -> GuardState:
        """One poll of everything, a second later; the guard's state."""
        self.now_ms += 1000
        self.case.tick(self.image, self.now_ms // 1000)
        now = MonoNs(self.now_ms * 1_000_000)
        for block, data in zip(self.plan.blocks, await read_all(self.url, self.plan.blocks), strict=True):
            self.engine.receive_block(block.id, data, now, now)
        (machine,) = self.plan.machines.values()
        return self.engine.guard_view(machine.id, machine.guards[0].id).state


def station(case: Case, image: ProfileImage, url: str) -> Station:
    document = parse(configuration([(case, url)], mqtt="mqtt://127.0.0.1:1").encode(), "agent.yaml", {})
    assert isinstance(document, Document), document
    settings = compile_settings(document)
    assert isinstance(settings, AgentSettings), [str(problem) for problem in settings]
    engine = EdgeEngine(settings.plan, epoch="E", boot="b", now=MonoNs(0), wall=WALL, memory={})
    return Station(case, image, settings.plan, engine, url)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.profile)
async def test_a_guard_of_each_product_closes_and_opens(case: Case) -> None:
    image = image_of(case.profile, case.base)
    case.prepare(image)
    async with RegisterBankServer(image.bank) as server:
        watched = station(case, image, f"modbus+tcp://127.0.0.1:{server.address[1]}")
        case.set_guard(image, closed=True)
        assert [await watched.poll() for _ in range(3)][-1] is GuardState.CLOSED
        case.set_guard(image, closed=False)
        assert await watched.poll() is GuardState.OPEN
        case.set_guard(image, closed=True)
        assert await watched.poll() is GuardState.CLOSED


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.identity is not None], ids=lambda case: case.profile
)
async def test_all_ones_where_the_device_should_name_itself_is_never_a_closed_guard(case: Case) -> None:
    image = image_of(case.profile, case.base)
    case.prepare(image)
    case.set_guard(image, closed=True)
    assert case.identity is not None
    image.set_all_ones(case.identity)
    async with RegisterBankServer(image.bank) as server:
        watched = station(case, image, f"modbus+tcp://127.0.0.1:{server.address[1]}")
        assert {await watched.poll() for _ in range(3)} == {GuardState.UNKNOWN}


def test_every_shipped_profile_is_tried() -> None:
    assert {case.profile for case in CASES} == set(SHIPPED)
    assert profile_folder() == Path(SHIPPED["plc-block"]).parent
