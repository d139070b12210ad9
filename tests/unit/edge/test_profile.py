"""Device profiles: how products count their points, what a profile may say, and what a configuration makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.configfile import Document, parse
from edge_agent.domain.plan import SignalPlan, Table, ValueType
from edge_agent.domain.readplan import ReadLimits, plan_reads
from edge_agent.domain.units import DeviceId, SignalId
from edge_agent.settings import AgentSettings, compile_settings
from edge_agent.settings.address import Misaddress
from edge_agent.settings.editor import editor_schema
from edge_agent.settings.profile import Profile, load_profile, shipped_folder, shipped_profiles
from edge_agent.settings.profile_points import Found
from edge_agent.settings.profile_schema import ProfileFile

ROOT = Path(__file__).parents[3]
SHIPPED = shipped_profiles()

OWN = """\
id: own
labels: {zh: 自制, en: Own}
vendor: us
products: [box]
source: [a drawing]
"""


def own(folder: Path, points: str, more: str = "") -> Path:
    """A profile of the plant's own; `points` are indented lines."""
    path = folder / "own.yaml"
    path.write_text(OWN + more + "points:\n" + points, encoding="utf-8")
    return path


def point(at: str, more: str = "") -> str:
    return f"{{at: {at}, labels: {{zh: 点, en: Point}}{', ' + more if more else ''}}}"


def good(path: Path) -> Profile:
    profile = load_profile(path)
    assert isinstance(profile, Profile), [str(problem) for problem in profile]
    return profile


def place(profile: Profile, name: str) -> str:
    found = profile.names.find(name)
    assert not isinstance(found, Misaddress), found
    mask = "" if found.place.mask is None else f"&{found.place.mask:#x}"
    return found.place.at + mask


def refusal(profile: Profile, name: str) -> str:
    found = profile.names.find(name)
    assert isinstance(found, Misaddress), found
    return f"{found.what} — {found.mend}"


def complaints(path: Path) -> list[str]:
    problems = load_profile(path)
    assert isinstance(problems, list)
    return [str(problem).removeprefix(str(path) + ":") for problem in problems]


HEAD = """\
site: s
agent: a
labels: {zh: 网关, en: Gateway}
mqtt: {url: mqtt://127.0.0.1}
store: {path: a.db}
"""


def configuration(device: str, channels: str, more: str = "") -> str:
    return HEAD + (
        f'devices:\n  d: {{url: "modbus+tcp://192.0.2.10", {device}}}\n'
        "machines:\n  m:\n    labels: {zh: 机, en: Machine}\n"
        f"    signals: {{running: {{at: d/co/60000}}{more}}}\n"
        f"    guards:\n      g: {{labels: {{zh: 门, en: Door}}, kind: interlocked_door, channels: [{channels}]}}\n"
    )


def compiled(text: str, file: str = "agent.yaml") -> AgentSettings:
    result = compiled_or_not(text, file)
    assert isinstance(result, AgentSettings), result
    return result


def compiled_or_not(text: str, file: str = "agent.yaml") -> AgentSettings | list[str]:
    document = parse(text.encode(), file, {})
    assert isinstance(document, Document), document
    result = compile_settings(document)
    return result if isinstance(result, AgentSettings) else [str(problem) for problem in result]


def signal(settings: AgentSettings, name: str) -> SignalPlan:
    (found,) = (one for one in settings.plan.signals if one.name == name)
    return found


# ---- how products count


def test_octal_inputs_go_from_seven_to_ten() -> None:
    delta = good(SHIPPED["delta-dvp"])
    assert [place(delta, name) for name in ("X0", "X7", "X10", "X17", "X20", "X377")] == [
        "di/1024",
        "di/1031",
        "di/1032",
        "di/1039",
        "di/1040",
        "di/1279",
    ]


@pytest.mark.parametrize("name", ["X8", "X9", "X18", "X080"])
def test_a_digit_that_octal_has_not_is_told_as_that(name: str) -> None:
    said = refusal(good(SHIPPED["delta-dvp"]), name)
    assert said.startswith(f"there is no point {name}: ")
    assert "after 7 comes 10" in said


def test_inovance_reads_its_inputs_as_coils_counted_octal() -> None:
    inovance = good(SHIPPED["inovance-h5u"])
    assert place(inovance, "X10") == f"co/{0xF800 + 8}"
    assert place(inovance, "Y1777") == "co/65535"
    assert place(inovance, "M10") == "co/10"


def test_a_range_may_go_on_elsewhere() -> None:
    delta = good(SHIPPED["delta-dvp"])
    assert [place(delta, name) for name in ("M1535", "M1536", "D4095", "D4096")] == [
        f"co/{0x0DFF}",
        f"co/{0xB000}",
        f"hr/{0x1FFF}",
        f"hr/{0x9000}",
    ]


def test_siemens_counts_bytes_and_puts_the_first_one_high() -> None:
    siemens = good(SHIPPED["siemens-s7-1200"])
    assert place(siemens, "I1.3") == "di/11"
    assert [place(siemens, f"DBX{at}") for at in ("0.0", "0.7", "1.0", "2.1")] == [
        "hr/0.8",
        "hr/0.15",
        "hr/0.0",
        "hr/1.9",
    ]
    assert [place(siemens, name) for name in ("DBW0", "DBW2", "DBD6")] == ["hr/0", "hr/1", "hr/3"]
    assert refusal(siemens, "DBW3") == (
        "there is no point DBW3: byte 3 is the middle of a register — write an even number: each register is two bytes"
    )


def test_bits_of_registers_run_on_into_the_next_register(tmp_path: Path) -> None:
    profile = good(own(tmp_path, f"  b{{n}}: {point('hr/4.14', 'count: 4, first: 1')}\n"))
    assert [place(profile, f"b{number}") for number in (1, 2, 3, 4)] == [
        "hr/4.14",
        "hr/4.15",
        "hr/5.0",
        "hr/5.1",
    ]


def test_masked_fields_run_on_by_their_width() -> None:
    pilz = good(SHIPPED["pilz-pnozmulti2"])
    assert [place(pilz, f"r4_led{number}") for number in range(4)] == [
        "ir/1118&0xf",
        "ir/1118&0xf0",
        "ir/1118&0xf00",
        "ir/1118&0xf000",
    ]
    assert place(pilz, "led4") == "ir/1029&0xf"


def test_a_step_leaves_room_between_the_records() -> None:
    banner = good(SHIPPED["banner-xs26"])
    assert [place(banner, f"fault{number}_at") for number in (1, 2, 10)] == ["hr/232", "hr/247", "hr/367"]
    schmersal = good(SHIPPED["schmersal-sd"])
    assert place(schmersal, "s1_closed") == "hr/1.9"
    assert place(schmersal, "s31_response") == "hr/31&0xff00"


def test_pilz_bits_are_those_of_its_registers() -> None:
    pilz = good(SHIPPED["pilz-pnozmulti2"])
    assert place(pilz, "o0") == "di/8192"
    assert place(pilz, "o127") == "di/8319"
    assert place(pilz, "o_word1.2") == "ir/513.2"


def test_a_single_bit_of_a_word_is_named_behind_a_point() -> None:
    delta = good(SHIPPED["delta-dvp"])
    assert place(delta, "D100.15") == f"hr/{0x1000 + 100}.15"
    assert refusal(delta, "D100.16") == "a register has no bit 16 — write a bit from .0 to .15"
    assert refusal(delta, "X10.3") == "X10 is no whole register — write X10 without .3"


@pytest.mark.parametrize(
    ("profile", "name", "said"),
    [
        ("pilz-pnozmulti2", "o128", "there is no point o128 — o{n} has 0 to 127"),
        (
            "pilz-pnozmulti2",
            "o01",
            "there is no point o01: 01 is no number — write the number without leading zeros",
        ),
        ("delta-dvp", "x10", "there is no point x10 — did you mean X10"),
        ("delta-dvp", "M5000", "there is no point M5000 — M{n} has 0 to 1535 and 1536 to 4095"),
        ("plc-block", "zerospeed", "there is no point zerospeed — did you mean zero_speed"),
        ("plc-block", "g17_locked", "there is no point g17_locked — g{n}_locked has 1 to 16"),
        ("siemens-s7-1200", "I1.8", "there is no point I1.8: 1.8 is no BYTE.BIT"),
        ("siemens-s7-1200", "I3", "there is no point I3: 3 is no BYTE.BIT"),
        ("sick-flexi-compact", "Ω", "there is no point Ω — points here: maker, run"),
    ],
)
def test_a_name_that_is_not_there_brings_what_was_meant(profile: str, name: str, said: str) -> None:
    assert refusal(good(SHIPPED[profile]), name).startswith(said)


# ---- what a profile may say


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_is_good_and_finds_each_of_its_names(name: str) -> None:
    profile = good(SHIPPED[name])
    for family in profile.names.families:
        listed = list(family.names())
        for point_name in {*listed[:20], *listed[-20:]}:
            found = profile.names.find(point_name)
            assert not isinstance(found, Misaddress), found
            assert found.family is family


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_range_names_its_number_in_both_languages(name: str) -> None:
    for family in good(SHIPPED[name]).names.families:
        labels = family.section.labels
        assert ("{n}" in labels.zh, "{n}" in labels.en) == (family.is_range, family.is_range), family.key
        assert not labels.zh.isascii(), f"{family.key} has no Chinese name"


def test_the_profiles_of_the_plan_are_there() -> None:
    assert set(SHIPPED) == {
        "plc-block",
        "pilz-pnozmulti2",
        "banner-xs26",
        "banner-isd",
        "sick-flexi-compact",
        "schneider-xpsmc",
        "schmersal-sd",
        "wago-750",
        "beckhoff-bk",
        "siemens-s7-1200",
        "delta-dvp",
        "inovance-h5u",
    }


def test_the_shipped_profiles_go_into_the_wheel() -> None:
    assert '"config/profiles" = "edge_agent/profiles"' in (ROOT / "pyproject.toml").read_text(
        encoding="utf-8"
    )
    assert shipped_folder() == ROOT / "config" / "profiles"


def test_all_mistakes_of_a_profile_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    path = own(
        tmp_path,
        f"  a: {point('hr/99999')}\n"
        f"  b{{n}}: {point('di/0')}\n"
        f"  c: {point('di/1', 'count: 2')}\n"
        f"  d{{n}}: {point('di/65530', 'count: 10')}\n"
        f"  e{{n}}: {point('di/8', 'count: 8, numbering: bytes')}\n"
        f"  f: {point('plc1/di/8')}\n"
        f"  g{{n}}: {point('di/100', 'count: 4')}\n"
        f"  g2: {point('di/200')}\n"
        f"  h i: {point('di/201')}\n"
        f"  w: {point('hr/7')}\n"
        f"  z: {point('di/202', 'scael: 2')}\n",
        "avoid: [{at: hr/0, count: 8, why: {zh: 可写, en: written by clients}}]\n"
        "unverified: [{zh: 未证实, en: not read, points: [gg]}]\n"
        "device: {heartbeat: {at: beat}}\n",
    )
    assert complaints(path) == [
        "7:47: there is no point gg — name a key of `points`",
        "8:26: there is no point beat — points here: g{n}, g2, w, z",
        (
            "10:11: `at`: 99999 is beyond the last address 65535 — addresses are 0-based PDU addresses; for 40001 write hr/0, "
            "for 30001 ir/0, for 10001 di/0, for 1 co/0"
        ),
        "11:3: b{n} has no count — a range has both {n} in its name and count",
        "12:3: c has a count, and no {n} for the number — a range has both {n} in its name and count",
        "13:9: d{n} ends at 65539, beyond 65535 — correct count or at",
        "14:69: bytes counts whole registers — correct it, or `at`",
        '15:11: `at`: "plc1/di/8" names a device — a profile\'s address is TABLE/NUMBER[.BIT]',
        "17:3: g2 is a point of a range too — rename one of them",
        '18:3: "h i" is no name of a point — use letters, digits and _, beginning with a letter; {n} once in a range',
        "19:11: w lies in what must not be read: written by clients — remove it, or correct the addresses",
        "20:47: unknown key `scael` — did you mean `scale`?",
    ]


def test_a_profile_is_called_as_its_file(tmp_path: Path) -> None:
    path = own(tmp_path, f"  a: {point('di/0')}\n").rename(tmp_path / "other.yaml")
    assert complaints(path) == ["1:5: the profile is called own, its file is not — name it own.yaml"]


def test_the_editors_schema_of_profiles_is_the_generated_one() -> None:
    stored = (ROOT / "config/profile.schema.json").read_text(encoding="utf-8")
    said = "run: python -m edge_agent.settings.editor profile > config/profile.schema.json"
    assert stored == editor_schema(ProfileFile), said


def test_the_editors_schema_describes_every_key_of_a_profile() -> None:
    schema = json.loads(editor_schema(ProfileFile))
    for name, section in [("file", schema), *schema["$defs"].items()]:
        for key, field in section.get("properties", {}).items():
            assert "description" in field, f"{name}.{key}"


# ---- what a configuration makes of it


def test_a_point_brings_its_address_and_what_the_profile_says_of_it() -> None:
    settings = compiled(
        configuration("profile: plc-block", "{at: d/g1_ch_a}, {at: d/g1_ch_b}", ", mode: {at: d/mode}")
    )
    first, second, mode = (signal(settings, name) for name in ("ch_a", "ch_b", "mode"))
    assert (first.table, first.number, first.bit) == (Table.HOLDING_REGISTER, 4, 0)
    assert (second.table, second.number, second.bit) == (Table.HOLDING_REGISTER, 5, 0)
    assert mode.coding.map == {0: "auto", 1: "setup", 2: "maint", 3: "local"}


def test_a_heartbeat_that_its_profile_reads_too_slowly_for_its_staleness_is_refused(tmp_path: Path) -> None:
    own(tmp_path, f"  beat: {point('hr/9', 'poll_ms: 3000')}\n  a: {point('hr/0.0')}\n")
    text = configuration("profile: own.yaml, heartbeat: {at: beat, stale_ms: 5000}", "{at: d/a}")
    problems = compiled_or_not(text, str(tmp_path / "agent.yaml"))
    assert isinstance(problems, list)
    assert "`heartbeat`: 5000 ms are less than two polls of 3000 ms — write at least 6000" in problems[0]


def test_what_the_plant_writes_goes_before_the_profile() -> None:
    settings = compiled(
        configuration(
            "profile: banner-xs26, max_rps: 17, heartbeat: null",
            "{at: d/vo1, grade: C}, {at: d/vo2}",
            ", speed: {at: d/seconds, type: float32, unit: rpm, rated: 3}",
        )
    )
    assert (signal(settings, "ch_a").grade, signal(settings, "ch_b").grade) == ("C", "B")
    assert (signal(settings, "speed").type, signal(settings, "speed").coding.unit) == (
        ValueType.FLOAT32,
        "rpm",
    )
    (device,) = settings.plan.devices.values()
    assert (device.max_rps, device.heartbeat) == (17, None)


def test_what_the_profile_suggests_for_the_device_is_its_default() -> None:
    settings = compiled(configuration("profile: banner-xs26", "{at: d/vo1}"))
    (device,) = settings.plan.devices.values()
    assert device.max_rps == 20
    assert device.heartbeat is not None
    beat = settings.plan.signals[device.heartbeat.signal]
    assert (beat.table, beat.number, beat.type) == (Table.HOLDING_REGISTER, 382, ValueType.UINT32)


def test_a_block_stands_where_the_device_says() -> None:
    settings = compiled(
        configuration("profile: plc-block, profile_base: 100", "{at: d/g2_ch_a}, {at: d/g2_ch_b}")
    )
    assert (signal(settings, "ch_a").number, signal(settings, "ch_a").bit) == (104, 1)
    assert signal(settings, "heartbeat").number == 100
    registers = [block for block in settings.plan.blocks if block.table is Table.HOLDING_REGISTER]
    assert len({block.poll_ms for block in registers}) == len(registers), "one request reads the block"


def test_numeric_addresses_stay_possible_beside_points() -> None:
    settings = compiled(configuration("profile: delta-dvp", "{at: d/X10}, {at: d/di/1033}"))
    assert (signal(settings, "ch_a").number, signal(settings, "ch_b").number) == (1032, 1033)


def test_a_change_of_the_profile_changes_the_configurations_hash(tmp_path: Path) -> None:
    text, file = configuration("profile: ./own.yaml", "{at: d/a}"), str(tmp_path / "agent.yaml")
    own(tmp_path, f"  a: {point('di/0')}\n")
    before = compiled(text, file).plan.config_hash
    own(tmp_path, f"  a: {point('di/1')}\n")
    assert compiled(text, file).plan.config_hash != before


def test_points_of_a_point_list_may_be_named_too(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("machine,guard,signal,at\nm,g,locked,d/X3\n", encoding="utf-8")
    text = configuration("profile: delta-dvp", "{at: d/X0}, {at: d/X1}") + "signals_csv: points.csv\n"
    assert signal(compiled(text, str(tmp_path / "agent.yaml")), "locked").number == 1027


@pytest.mark.parametrize(
    ("device", "channels", "said"),
    [
        (
            "profile: pils-pnozmulti2",
            "{at: d/o1}",
            [
                ("agent.yaml:7:48: `profile`: there is no profile pils-pnozmulti2 — did you mean pilz-pnozmulti2; one of "
                "your own is named by its path, PATH.yaml")
            ],
        ),
        ("profile: own.yaml", "{at: d/o1}", ["agent.yaml:7:48: `profile`: there is no file own.yaml — check the path"]),
        (
            "profile: delta-dvp",
            "{at: d/X8}",
            [
                ("agent.yaml:13:78: `at`: in delta-dvp, there is no point X8: 8 is no octal number — this product counts octal: "
                "after 7 comes 10, there is no 8 or 9")
            ],
        ),
        (
            "unit: 1",
            "{at: d/X8}",
            [
                "agent.yaml:13:78: `at`: d has no profile, and so no point X8 — write d/TABLE/NUMBER, or give the device a profile"
            ],
        ),
        (
            "profile: delta-dvp",
            "{at: e/X7}",
            ['agent.yaml:13:78: `at`: there is no device e — devices here: d'],
        ),
        (
            "profile: pilz-pnozmulti2",
            "{at: d/co/5}",
            ["agent.yaml:13:78: `at`: d/co/5 must not be read: virtual inputs, written by clients — address something else"],
        ),
        (
            "profile: pilz-pnozmulti2, profile_base: 5",
            "{at: d/o1}",
            ["agent.yaml:7:65: d has no profile that could be moved — remove profile_base"],
        ),
        (
            "profile: plc-block, profile_base: 65520, heartbeat: null, presence: {}",
            "{at: d/g1_ch_a}, {at: d/g12_open_count}",
            ["agent.yaml:13:95: `at`: g12_open_count lies at 65541, beyond 65535 — correct profile_base"],
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_naming_a_profile_or_a_point_is_told_with_its_mend(
    device: str, channels: str, said: list[str]
) -> None:
    assert compiled_or_not(configuration(device, channels)) == said


def test_no_request_reads_along_what_must_not_be_read() -> None:
    """The watchdog's time at hr/4128, between two registers that may be read."""
    channels = "{at: d/hr/4127.0}, {at: d/hr/4129.0}"
    assert compiled_or_not(configuration("profile: beckhoff-bk, gap_registers: 8", channels)) == [
        (
            "agent.yaml:13:7: the channels of g have addresses between them that must not be read: they would differ by a "
            "poll — wire them closer together"
        )
    ]
    apart = "{at: d/hr/4127.0}, {at: d/hr/4127.1}"
    assert isinstance(compiled_or_not(configuration("profile: beckhoff-bk", apart)), AgentSettings)


def test_mistakes_of_a_plants_own_profile_are_told_with_those_of_the_configuration(tmp_path: Path) -> None:
    path = own(tmp_path, f"  a: {point('hx/0')}\n")
    text = configuration("profile: ./own.yaml", "{at: d/a}", ", zero_speed: {at: d/di/99999}")
    said = compiled_or_not(text, str(tmp_path / "agent.yaml"))
    assert isinstance(said, list)
    assert [line.split(": ")[0] for line in said] == [
        f"{tmp_path / 'agent.yaml'}:11:59",
        f"{path}:7:11",
    ]


def test_named_points_are_never_suspected_of_a_wrong_base() -> None:
    """M1 to M4 without M0, and a register in 4xxxx: the profile knows."""
    settings = compiled(
        configuration(
            "profile: inovance-h5u",
            "{at: d/M1}, {at: d/M2}",
            ", estop_ok: {at: d/M3}, safety_out: {at: d/M4}",
        )
    )
    delta = compiled(configuration("profile: delta-dvp", "{at: d/D9000.0}, {at: d/D9000.1}"))
    said = [warning.what for found in (settings, delta) for warning in found.warnings]
    assert not [what for what in said if "1-based" in what or "label" in what]
    by_number = compiled(configuration("profile: delta-dvp", "{at: d/hr/41768.0}, {at: d/hr/41768.1}"))
    assert any("looks like a label" in warning.what for warning in by_number.warnings)


def test_check_warns_of_each_use_of_what_nobody_read_in_a_manual() -> None:
    settings = compiled(configuration("profile: pilz-pnozmulti2", "{at: d/r4_i1}, {at: d/r3_i31}"))
    (warned,) = (str(warning) for warning in settings.warnings if "unverified" in warning.what)
    assert warned.startswith(
        "agent.yaml:13:93: `at`: r3_i31 of pilz-pnozmulti2 is unverified: worked out from"
    )


EXAMPLES = sorted((ROOT / "config/examples").glob("*.yaml"))


@pytest.mark.parametrize("name", ["pilz", "delta", "inovance"])
def test_the_examples_with_profiles_name_points_and_nothing_unverified(name: str) -> None:
    (path,) = (example for example in EXAMPLES if example.stem == name)
    text = path.read_text(encoding="utf-8")
    settings = compiled(text, str(path))
    assert "profile: " in text
    assert not re.search(r"at: [a-z0-9]+/(co|di|hr|ir)/", text)
    assert not [warning for warning in settings.warnings if "unverified" in warning.what]


def test_a_field_of_a_register_can_be_a_contact_by_its_codes() -> None:
    """A lamp that must be on, not flashing: the profile's field and map, the plant's codes."""
    settings = compiled(
        configuration("profile: pilz-pnozmulti2", "{at: d/r4_i0}").replace(
            "running: {at: d/co/60000}", "running: {at: d/r4_led1, true_when: [15]}"
        )
    )
    lamp = signal(settings, "running")
    coding = lamp.coding
    assert (lamp.number, coding.mask, coding.true_when, coding.map) == (1118, 0x00F0, (15,), None)


def test_a_presence_check_of_a_profile_covers_the_device_until_the_plant_says_otherwise() -> None:
    with_it = compiled(configuration("profile: sick-flexi-compact", "{at: d/result0.0}"))
    (device,) = with_it.plan.devices.values()
    (proof,) = device.presence
    checked = with_it.plan.signals[proof.signal]
    assert (proof.name, checked.table, checked.number) == ("device", Table.INPUT_REGISTER, 0)
    assert set(checked.coding.true_when) == {0x5349, 0x4953}
    without = compiled(configuration("profile: sick-flexi-compact, presence: {}", "{at: d/result0.0}"))
    (device,) = without.plan.devices.values()
    assert device.presence == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_reading_all_points_of_a_profile_touches_nothing_that_must_not_be_read(name: str) -> None:
    """Gaps that are read along included."""
    profile = good(SHIPPED[name])
    limits = ReadLimits(
        200, 2000, gap_bits=profile.file.device.gap_bits, gap_registers=profile.file.device.gap_registers
    )
    signals = [
        SignalPlan(
            SignalId(index),
            point,
            None,
            None,
            DeviceId("d"),
            found.place.table,
            found.place.number,
            None,
            kind,
            200,
        )
        for index, (point, found, kind) in enumerate(all_points(profile))
    ]
    for block in plan_reads(signals, {DeviceId("d"): limits}):
        for area in profile.avoid:
            assert not area.touches(block.table, block.start, block.start + block.count - 1), block


def all_points(profile: Profile) -> Iterator[tuple[str, Found, ValueType]]:
    for family in profile.names.families:
        for point in family.names():
            found = profile.names.find(point)
            assert isinstance(found, Found)
            is_bit = found.place.bit is not None or found.place.table.is_bits
            kind = ValueType.UINT16 if is_bit else family.section.type or ValueType.UINT16
            yield point, found, ValueType.BIT if found.place.table.is_bits else kind
