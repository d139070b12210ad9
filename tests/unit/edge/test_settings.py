"""A good configuration becomes exactly the plan that the outside contract describes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edge_agent.configfile import Document, parse
from edge_agent.domain.birth import machine_model
from edge_agent.domain.decode import compile_decoder
from edge_agent.domain.plan import (
    DevicePlan,
    Endian,
    Grade,
    GuardKind,
    GuardPlan,
    HeartbeatPlan,
    RuleName,
    RulePlan,
    SignalPlan,
    Table,
    ValueType,
)
from edge_agent.domain.units import DeviceId, MachineId
from edge_agent.settings import AgentSettings, Delivery, StoreSettings, compile_settings, load
from edge_agent.settings.address import Address, looks_like_label, parse_address
from edge_agent.settings.editor import editor_schema
from edge_agent.settings.link import BadUrl, parse_broker, parse_link
from edge_agent.settings.report import check_data, check_report
from edge_agent.wire.codec import PAYLOAD_MAX_BYTES
from edge_agent.wire.event import Priority
from edge_agent.wire.status import encode_status

ROOT = Path(__file__).parents[3]
EXAMPLES = [
    path for path in sorted((ROOT / "config" / "examples").glob("*.yaml")) if "\ndevices:" in path.read_text()
]

CONTRACT = """\
site: changyi                          # ISA-95 site = subsidiary
agent: gw-01                           # unique on the broker; also its MQTT user name
labels: {zh: 昌邑工厂一号网关, en: Changyi gateway 1}
site_labels: {zh: 昌邑工厂, en: Changyi}          # optional
areas: {moulding: {labels: {zh: 造型, en: Moulding}}}   # optional
mqtt:
  url: mqtt://127.0.0.1:1883           # mqtts:// for TLS; ws:// and wss:// too
  username: gw-01
  password_file: secrets/gw-01.mqtt    # secrets only ever by file or ${ENV}
  # ca_file, cert_file, key_file; delivery: gateway (default) | broker
store: {path: var/gw-01.db, size_max_mb: 512}    # outbox and evidence ledger; paths are relative to this file
devices:
  plc1:
    url: modbus+tcp://192.0.2.10:502   # also modbus+tls://, modbus+rtuovertcp://, modbus+rtu:///dev/ttyUSB0?baud=19200&parity=E
    unit: 1                            # 0–255 on TCP, 1–247 on RTU framing; devices with the same url share one link
    poll_ms: 200
    timeout_ms: 500
    stale_ms: 2000                     # default max(3 × poll_ms, 2000)
    max_rps: 50                        # requests per second, at most
    heartbeat: {at: hr/0, stale_ms: 5000}        # optional free-running counter: proves the PLC program runs
machines:
  mixer-18:
    labels: {zh: 18号混砂机, en: Mixer 18}
    area: moulding
    kind: mixer
    rundown_s: 12
    signals:
      running:    {at: plc1/di/4}
      zero_speed: {at: plc1/di/5}
      speed:      {at: plc1/ir/10, type: uint16, scale: 0.1, unit: rpm, rated: 24}
      mode:       {at: plc1/hr/7, map: {0: auto, 1: setup, 2: maint, 3: local}}   # unmapped = unknown
    guards:
      door-1:
        labels: {zh: 检修门, en: Service door}
        kind: interlocked_door
        channels: [{at: plc1/di/0}, {at: plc1/di/1}]   # one or two; 1 = closed; `invert: true` for the other polarity
        locked:   {at: plc1/di/2}
        bypass:   {at: plc1/di/3}
        rules:                                         # overrides only; the defaults come with the guard's kind
          channel_discrepancy: {on_delay_ms: 500}
"""
"""The example of the outside contract, verbatim."""

HEAD = """\
site: s
agent: a
labels: {zh: 网关, en: Gateway}
mqtt: {url: mqtt://127.0.0.1}
store: {path: a.db}
devices:
  plc1: {url: "modbus+tcp://192.0.2.10"}
  slow: {url: "modbus+tcp://192.0.2.11", poll_ms: 1000}
"""


def settings_of(text: str) -> AgentSettings:
    document = parse(text.encode(), "agent.yaml", {})
    assert isinstance(document, Document), document
    result = compile_settings(document)
    assert isinstance(result, AgentSettings), [str(problem) for problem in result]
    return result


def machine(*, signals: str = "running: {at: plc1/di/100}", **guards: str) -> str:
    listed = "".join(
        f"      {name}: {{labels: {{zh: 门, en: Door}}, {body}}}\n" for name, body in guards.items()
    )
    return HEAD + (
        "machines:\n  m1:\n    labels: {zh: 机, en: Machine}\n"
        f"    signals: {{{signals}}}\n    guards:\n{listed or '      {}'}"
    )


def guard_of(text: str, name: str = "g") -> GuardPlan:
    (found,) = settings_of(text).plan.machines.values()
    return next(guard for guard in found.guards if guard.id == name)


def warnings_of(text: str) -> list[str]:
    """What is warned about, except the device that only few tests wire."""
    return [warning.what for warning in settings_of(text).warnings if "device slow" not in warning.what]


def rules_of(text: str, name: str = "g") -> dict[RuleName, RulePlan]:
    return {rule.name: rule for rule in guard_of(text, name).rules}


@pytest.fixture
def contract_settings(tmp_path: Path) -> AgentSettings:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "gw-01.mqtt").write_text("pa55\n")
    (tmp_path / "agent.yaml").write_text(CONTRACT)
    result = load(tmp_path / "agent.yaml", {})
    assert isinstance(result, AgentSettings), [str(problem) for problem in result]
    return result


def test_the_contracts_example_loads_verbatim_and_without_warnings(
    contract_settings: AgentSettings, tmp_path: Path
) -> None:
    found = contract_settings
    assert found.warnings == ()
    assert found.store == StoreSettings(tmp_path / "var/gw-01.db", 512)
    assert (found.mqtt.host, found.mqtt.port, found.mqtt.username, found.mqtt.password) == (
        "127.0.0.1",
        1883,
        "gw-01",
        "pa55",
    )
    assert (found.mqtt.delivery, found.mqtt.is_tls) == (Delivery.GATEWAY, False)
    assert "pa55" not in repr(found)
    assert (found.plan.site, found.plan.agent, found.plan.state_report_s) == ("changyi", "gw-01", 3600)
    assert found.plan.areas == {"moulding": {"zh": "造型", "en": "Moulding"}}


def test_the_contracts_example_becomes_this_plan(contract_settings: AgentSettings) -> None:
    plan = contract_settings.plan
    assert [signal.path for signal in plan.signals] == [
        "heartbeat",
        "mixer-18/running",
        "mixer-18/zero_speed",
        "mixer-18/speed",
        "mixer-18/mode",
        "mixer-18/door-1/ch_a",
        "mixer-18/door-1/ch_b",
        "mixer-18/door-1/locked",
        "mixer-18/door-1/bypass",
    ]
    assert [signal.id for signal in plan.signals] == list(range(9))
    speed, mode = plan.signals[3], plan.signals[4]
    assert (speed.table, speed.number, speed.type) == (Table.INPUT_REGISTER, 10, ValueType.UINT16)
    assert (speed.coding.scale, speed.coding.offset, speed.coding.unit, speed.coding.rated, speed.grade) == (
        0.1,
        0.0,
        "rpm",
        24.0,
        Grade.C,
    )
    assert mode.coding.map == {0: "auto", 1: "setup", 2: "maint", 3: "local"}
    (found,) = plan.machines.values()
    assert (found.kind, found.area, found.rundown_ms) == ("mixer", "moulding", 12_000)
    (door,) = found.guards
    assert (door.channels, door.locked, door.bypass, door.stale_ms) == ((5, 6), 7, 8, 2000)
    assert [(b.table, b.start, b.count) for b in plan.blocks] == [
        (Table.DISCRETE_INPUT, 0, 6),
        (Table.HOLDING_REGISTER, 0, 8),
        (Table.INPUT_REGISTER, 10, 1),
    ]
    (device,) = plan.devices.values()
    assert device.blocks == (0, 1, 2)
    assert device == DevicePlan(
        id=device.id, url="modbus+tcp://192.0.2.10:502", unit=1, poll_ms=200, timeout_ms=500, stale_ms=2000,
        max_rps=50, heartbeat=HeartbeatPlan(plan.signals[0].id, 5000), rules=device.rules, blocks=device.blocks,
    )  # fmt: skip


def test_the_contracts_example_is_judged_by_these_rules_with_these_parameters(
    contract_settings: AgentSettings,
) -> None:
    plan = contract_settings.plan
    (found,) = plan.machines.values()
    (device,) = plan.devices.values()
    assert found.guards[0].rules == (
        RulePlan(RuleName.GUARD_OPEN_MOTION, Priority.P1, 300, 2000, 5000, True, 10_000, {"unknown_guard_delay_ms": 10_000}, 750),
        RulePlan(RuleName.CHANNEL_DISCREPANCY, Priority.P2, 500, 0, None, True, 10_000, {}, 950),
        RulePlan(RuleName.BYPASS_ACTIVE, Priority.P1, 1000, 5000, 5000, True, 10_000, {"permitless_ms": 900_000}, 1450),
    )  # fmt: skip
    assert device.rules == (
        RulePlan(
            RuleName.MONITORING_LOST,
            Priority.P2,
            10_000,
            30_000,
            None,
            False,
            10_000,
            {"window_ms": 60_000},
            15_450,
        ),
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads(example: Path) -> None:
    assert isinstance(load(example, {}), AgentSettings)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


def test_the_demo_configuration_loads() -> None:
    environ = {"GUARDWATCH_MQTT_PORT": "1883", "GUARDWATCH_SIM_PORT": "1502"}
    assert isinstance(load(ROOT / "config/demo/agent.yaml", environ), AgentSettings)


def test_the_editors_schema_in_the_repository_is_the_generated_one() -> None:
    stored = (ROOT / "config/agent.schema.json").read_text(encoding="utf-8")
    assert stored == editor_schema(), "run: python -m edge_agent.settings.editor > config/agent.schema.json"


def test_the_editors_schema_describes_every_key() -> None:
    schema = json.loads(editor_schema())
    for name, section in [("file", schema), *schema["$defs"].items()]:
        for key, field in section.get("properties", {}).items():
            assert "description" in field, f"{name}.{key}"


@pytest.mark.parametrize(
    ("guard", "rule", "on_delay_ms"),
    [
        ("kind: interlocked_door, channels: [{at: plc1/di/0}]", RuleName.GUARD_OPEN_MOTION, 1000),
        (
            "kind: interlocked_door, channels: [{at: plc1/di/0}], design_stop_ms: 700",
            RuleName.GUARD_OPEN_MOTION,
            700,
        ),
        (
            "kind: locked_door, channels: [{at: plc1/di/0}], locked: {at: plc1/di/1}, design_stop_ms: 700",
            RuleName.GUARD_OPEN_MOTION,
            300,
        ),
        ("kind: trapped_key, channels: [{at: plc1/di/0}]", RuleName.GUARD_OPEN_MOTION, 1000),
        (
            "kind: light_curtain, channels: [{at: plc1/di/0}, {at: plc1/di/1}]",
            RuleName.GUARD_OPEN_MOTION,
            1000,
        ),
        (
            "kind: interlocked_door, channels: [{at: plc1/di/0}, {at: plc1/di/1}]",
            RuleName.CHANNEL_DISCREPANCY,
            500,
        ),
        (
            "kind: light_curtain, channels: [{at: plc1/di/0}, {at: plc1/di/1}]",
            RuleName.CHANNEL_DISCREPANCY,
            400,
        ),
        (
            "kind: safety_mat, channels: [{at: slow/di/0}, {at: slow/di/1}]",
            RuleName.CHANNEL_DISCREPANCY,
            2000,
        ),
        ("kind: two_hand, channels: [{at: plc1/di/0}, {at: plc1/di/1}]", RuleName.CHANNEL_DISCREPANCY, 500),
        ("kind: estop, channels: [{at: plc1/di/0}]", RuleName.ESTOP, 0),
        (
            "kind: interlocked_door, channels: [{at: plc1/di/0}], bypass: {at: plc1/di/2}",
            RuleName.BYPASS_ACTIVE,
            1000,
        ),
    ],
)
def test_the_default_delay_follows_from_the_guard(guard: str, rule: RuleName, on_delay_ms: int) -> None:
    assert rules_of(machine(g=guard))[rule].on_delay_ms == on_delay_ms


ONE, TWO = "channels: [{at: plc1/di/0}]", "channels: [{at: plc1/di/0}, {at: plc1/di/1}]"
R01, R09, R17, R22 = (
    RuleName.GUARD_OPEN_MOTION,
    RuleName.CHANNEL_DISCREPANCY,
    RuleName.BYPASS_ACTIVE,
    RuleName.ESTOP,
)


@pytest.mark.parametrize(
    ("kind", "wired", "rules"),
    [
        (GuardKind.INTERLOCKED_DOOR, ONE, {R01}),
        (GuardKind.INTERLOCKED_DOOR, TWO, {R01, R09}),
        (GuardKind.LOCKED_DOOR, TWO + ", bypass: {at: plc1/di/2}", {R01, R09, R17}),
        (GuardKind.TRAPPED_KEY, ONE, {R01}),
        (GuardKind.LIGHT_CURTAIN, TWO, {R01, R09}),
        (GuardKind.SAFETY_MAT, ONE, {R01}),
        (GuardKind.PULL_CORD, ONE, set()),
        (GuardKind.PULL_CORD, TWO, {R09}),
        (GuardKind.ESTOP, ONE, {R22}),
        (GuardKind.ESTOP, TWO, {R09, R22}),
        (GuardKind.TWO_HAND, TWO, {R09}),
    ],
)
def test_a_guard_gets_the_rules_of_its_kind_where_their_signals_exist(
    kind: GuardKind, wired: str, rules: set[RuleName]
) -> None:
    assert set(rules_of(machine(g=f"kind: {kind.value}, {wired}"))) == rules


def test_a_machine_without_motion_source_gets_no_motion_rules_and_check_says_so() -> None:
    text = machine(signals="", g=f"kind: interlocked_door, {TWO}")
    assert set(rules_of(text)) == {R09}
    assert warnings_of(text) == ["m1 has no motion source: it gets no motion rules"]


def test_detection_counts_the_slowest_device_and_the_longest_debounce_that_a_rule_reads() -> None:
    text = machine(
        signals="running: {at: slow/di/0, debounce_ms: 70}",
        g="kind: interlocked_door, channels: [{at: plc1/di/0, debounce_ms: 30}, {at: plc1/di/1}]",
    )
    rules = rules_of(text)
    assert rules[R01].detect_ms == 1000 + 70 + 1000 + 1000 + 50
    assert rules[R09].detect_ms == 200 + 30 + 500 + 200 + 50


def test_overrides_replace_what_they_name_and_nothing_else() -> None:
    override = (
        "{guard_open_motion: {on_delay_ms: 900, priority: P2, latch: false, unknown_guard_delay_ms: 7000}}"
    )
    changed = rules_of(machine(g=f"kind: interlocked_door, {ONE}, rules: {override}"))[R01]
    default = rules_of(machine(g=f"kind: interlocked_door, {ONE}"))[R01]
    assert changed == replace(
        default,
        on_delay_ms=900,
        priority=Priority.P2,
        latch=False,
        parameters={"unknown_guard_delay_ms": 7000},
        detect_ms=default.detect_ms - 100,
    )


def test_a_rule_switched_off_is_not_judged_and_warned_about() -> None:
    text = machine(g=f"kind: interlocked_door, {TWO}, rules: {{channel_discrepancy: {{enabled: false}}}}")
    assert set(rules_of(text)) == {R01}
    assert warnings_of(text) == ["channel_discrepancy is switched off here"]


def test_rules_that_are_not_judged_yet_are_accepted_and_warned_about() -> None:
    text = machine(
        g=f"kind: interlocked_door, {ONE}, rules: {{guard_left_open: {{p4_ms: 600000}}, incomplete_cycle: {{}}}}"
    )
    assert warnings_of(text) == [
        "guard_left_open is not judged by this version",
        "incomplete_cycle is not judged by this version",
    ]


def test_estop_and_pull_cords_of_a_machine_become_guards_with_the_machines_overrides() -> None:
    text = machine(
        signals="running: {at: plc1/di/100}, estop_ok: {at: plc1/di/1}, pullcord_ok: [{at: plc1/di/2}, {at: plc1/di/3}]"
    )
    text += "\n    rules: {estop: {unreset_ms: 600000}}\n"
    (found,) = settings_of(text).plan.machines.values()
    assert [(guard.id, guard.kind, len(guard.channels)) for guard in found.guards] == [
        ("estop", GuardKind.ESTOP, 1),
        ("pullcord-1", GuardKind.PULL_CORD, 1),
        ("pullcord-2", GuardKind.PULL_CORD, 1),
    ]
    assert set(found.signals) == {"running"}
    (rule,) = found.guards[0].rules
    assert (rule.on_delay_ms, rule.parameters) == (0, {"unreset_ms": 600_000})


def test_one_estop_may_stop_several_machines_when_all_say_shared() -> None:
    def plant(flag: str) -> str:
        estop = f"signals: {{running: {{at: plc1/di/N}}, estop_ok: {{at: plc1/di/9{flag}}}}}"
        machines = "".join(
            f"  m{n}: {{labels: {{zh: 机, en: M}}, {estop.replace('/N', f'/{n}')}}}\n" for n in range(3)
        )
        return HEAD + "machines:\n" + machines

    plan = settings_of(plant(", shared: true")).plan
    assert [plan.signals[index].path for index in sorted(plan.shared)] == [
        f"m{n}/estop/ch_a" for n in range(3)
    ]
    document = parse(plant("").encode(), "agent.yaml", {})
    assert isinstance(document, Document)
    refused = compile_settings(document)
    assert isinstance(refused, list)
    assert len(refused) == 2


def test_both_channels_of_a_guard_live_in_one_block_or_check_warns() -> None:
    near = settings_of(machine(g="kind: safety_mat, channels: [{at: plc1/di/0}, {at: plc1/di/1900}]"))
    assert not any("two requests" in str(warning) for warning in near.warnings)
    far = settings_of(machine(g="kind: safety_mat, channels: [{at: plc1/di/0}, {at: plc1/co/0}]"))
    assert any("the channels of g are read in two requests" in str(warning) for warning in far.warnings)


@pytest.mark.parametrize(
    ("text", "warns"),
    [
        ("running: {at: plc1/hr/40001.0}", "if hr/0 is meant, write that"),
        ("running: {at: plc1/hr/49999.0}", "if hr/9998 is meant, write that"),
        ("speed: {at: plc1/ir/30010, rated: 1}", "if ir/9 is meant, write that"),
        ("speed: {at: plc1/ir/3}", "`speed` has no `rated`"),
        ("running: {at: plc1/di/1}, mode: {at: plc1/hr/1, map: {0: automatic}}", "did you mean auto?"),
        ("running: {at: plc1/di/1}", "the device slow is not read"),
    ],
)
def test_what_is_legal_but_probably_not_meant_is_a_warning(text: str, warns: str) -> None:
    assert any(warns in str(warning) for warning in settings_of(machine(signals=text)).warnings)


@pytest.mark.parametrize("at", ["plc1/hr/40000.0", "plc1/hr/50000.0", "plc1/di/16384"])
def test_high_addresses_that_are_no_labels_are_left_in_peace(at: str) -> None:
    assert not any("label" in str(w) for w in settings_of(machine(signals=f"running: {{at: {at}}}")).warnings)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("plc1/di/4", Address("plc1", Table.DISCRETE_INPUT, 4, None)),
        ("hr/0", Address(None, Table.HOLDING_REGISTER, 0, None)),
        ("a/hr/65535.15", Address("a", Table.HOLDING_REGISTER, 65535, 15)),
        ("a/ir/7.0", Address("a", Table.INPUT_REGISTER, 7, 0)),
        ("a/co/0", Address("a", Table.COIL, 0, None)),
    ],
)
def test_addresses_are_zero_based_and_name_their_table(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert looks_like_label(address) is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("modbus+tcp://192.0.2.10", "modbus+tcp://192.0.2.10:502"),
        ("modbus+tcp://PLC.example:1502/", "modbus+tcp://plc.example:1502"),
        ("modbus+tcp://[2001:db8::1]", "modbus+tcp://[2001:db8::1]:502"),
        ("modbus+tls://h", "modbus+tls://h:802"),
        ("modbus+rtuovertcp://h:4001", "modbus+rtuovertcp://h:4001"),
        ("modbus+rtu:///dev/ttyUSB0", "modbus+rtu:///dev/ttyUSB0?baud=19200&parity=E"),
        ("modbus+rtu:///dev/ttyUSB0?parity=n&baud=9600", "modbus+rtu:///dev/ttyUSB0?baud=9600&parity=N"),
        ("modbus+rtu:///dev/x?parity=N&stopbits=2", "modbus+rtu:///dev/x?baud=19200&parity=N"),
        ("modbus+rtu:///dev/x?stopbits=1&parity=N", "modbus+rtu:///dev/x?baud=19200&parity=N&stopbits=1"),
    ],
)
def test_equal_links_get_equal_urls(text: str, url: str) -> None:
    assert parse_link(text).url == url


def test_units_follow_the_framing() -> None:
    assert parse_link("modbus+tcp://h").units == range(256)
    assert parse_link("modbus+rtuovertcp://h:1").units == range(1, 248)
    assert parse_link("modbus+rtu:///dev/x").units == range(1, 248)


@pytest.mark.parametrize(
    "text",
    ["", "h:502", "modbus+tcp://", "modbus+tcp://h:0", "modbus+tcp://h:x", "modbus+tcp://a b", "modbus+tcp://h/x?y", "modbus+rtuovertcp://h",
     "modbus+rtu://dev/tty", "modbus+rtu:///dev/x?stop=1", "modbus+rtu:///dev/x?parity=Q", "modbus+rtu:///dev/x?stopbits=3", "modbus+tcp://[::1", "modbus+tcp://u:p@h"],
)  # fmt: skip
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(BadUrl):
        parse_link(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mqtt://h", ("mqtt", "h", 1883, "", False)),
        ("mqtts://h", ("mqtts", "h", 8883, "", True)),
        ("ws://h/x", ("ws", "h", 80, "/x", False)),
        ("wss://[::1]:9443", ("wss", "::1", 9443, "/mqtt", True)),
    ],
)
def test_brokers_have_the_ports_of_their_scheme(text: str, parts: tuple[str, str, int, str, bool]) -> None:
    broker = parse_broker(text)
    assert (broker.scheme, broker.host, broker.port, broker.path, broker.is_tls) == parts


def test_a_password_may_come_from_the_environment_and_never_reaches_the_hash() -> None:
    def loaded(password: str) -> AgentSettings:
        text = machine().replace(
            "{url: mqtt://127.0.0.1}", '{url: mqtt://127.0.0.1, username: a, password: "${PW}"}'
        )
        document = parse(text.encode(), "agent.yaml", {"PW": password})
        assert isinstance(document, Document)
        result = compile_settings(document)
        assert isinstance(result, AgentSettings), result
        return result

    one, other = loaded("one"), loaded("two")
    assert (one.mqtt.password, other.mqtt.password) == ("one", "two")
    assert one.plan.config_hash == other.plan.config_hash


def test_the_hash_follows_the_meaning_and_not_the_spelling() -> None:
    text = machine(g=f"kind: interlocked_door, {ONE}")
    same = settings_of(
        "# a comment\n" + text.replace("labels: {zh: 网关, en: Gateway}", "labels: {en: Gateway, zh: 网关}")
    )
    other = settings_of(text.replace("plc1/di/0", "plc1/di/3"))
    assert settings_of(text).plan.config_hash == same.plan.config_hash
    assert settings_of(text).plan.config_hash != other.plan.config_hash
    assert len(same.plan.config_hash) == 64


TLS = "{url: mqtts://h, ca_file: ca.pem, cert_file: c.pem, key_file: k.pem, delivery: broker}"


def test_certificates_are_found_beside_the_file(tmp_path: Path) -> None:
    for name in ("ca.pem", "c.pem", "k.pem"):
        (tmp_path / name).write_text("pem")
    (tmp_path / "agent.yaml").write_text(machine().replace("{url: mqtt://127.0.0.1}", TLS))
    found = load(tmp_path / "agent.yaml", {})
    assert isinstance(found, AgentSettings), found
    assert (found.mqtt.ca_file, found.mqtt.key_file) == (tmp_path / "ca.pem", tmp_path / "k.pem")
    assert (found.mqtt.is_tls, found.mqtt.delivery) == (True, Delivery.BROKER)


@pytest.mark.parametrize(
    ("mqtt", "what"),
    [
        ("{url: mqtts://h, cert_file: c.pem}", "`cert_file` stands without `key_file`"),
        ("{url: mqtt://h, ca_file: c.pem}", "`ca_file` needs an encrypted link, not mqtt"),
        ("{url: mqtt://h, password_file: c.pem}", "a password stands without `username`"),
        (
            '{url: mqtt://h, username: a, password: "${PW}", password_file: c.pem}',
            "`password` and `password_file` stand both",
        ),
    ],
)
def test_broker_keys_that_contradict_each_other_are_refused(tmp_path: Path, mqtt: str, what: str) -> None:
    (tmp_path / "c.pem").write_text("pem")
    (tmp_path / "agent.yaml").write_text(machine().replace("{url: mqtt://127.0.0.1}", mqtt))
    found = load(tmp_path / "agent.yaml", {"PW": "x"})
    assert isinstance(found, list)
    assert [problem.what for problem in found] == [what]


CSV = """\
machine,guard,signal,at,type,scale,unit,invert
m1,g,ch_a,plc1/di/0,,,,
m1,g,ch_b,plc1/di/1,,,,1
m1,g,bypass_active,plc1/di/2,,,,true
m1,,drive_speed,plc1/ir/5,float32,0.5,m/s,
m1,,estop_ok,plc1/di/7,,,,
m1,,pullcord_ok[1],plc1/di/8,,,,0
"""


def test_a_point_list_wires_what_the_configuration_could_wire(tmp_path: Path) -> None:
    text = machine(signals="", g="kind: interlocked_door")
    (tmp_path / "points.csv").write_text("\ufeff" + CSV)
    (tmp_path / "agent.yaml").write_text(text + "signals_csv: points.csv\n")
    listed = load(tmp_path / "agent.yaml", {})
    assert isinstance(listed, AgentSettings), listed
    written = settings_of(
        machine(
            signals="speed: {at: plc1/ir/5, type: float32, scale: 0.5, unit: m/s}, "
            "estop_ok: {at: plc1/di/7}, pullcord_ok: [{at: plc1/di/8}]",
            g="kind: interlocked_door, channels: [{at: plc1/di/0}, {at: plc1/di/1, invert: true}], "
            "bypass: {at: plc1/di/2, invert: true}",
        )
    )
    assert listed.plan.signals == written.plan.signals
    assert listed.plan.machines == written.plan.machines
    assert listed.plan.blocks == written.plan.blocks


def test_the_point_list_is_part_of_the_hash(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(
        machine(signals="", g="kind: interlocked_door") + "signals_csv: points.csv\n"
    )
    hashes = []
    for content in (CSV, CSV.replace("plc1/di/0", "plc1/di/20")):
        (tmp_path / "points.csv").write_text(content)
        found = load(tmp_path / "agent.yaml", {})
        assert isinstance(found, AgentSettings)
        hashes.append(found.plan.config_hash)
    assert len(set(hashes)) == 2


def test_a_values_encoding_reaches_the_plan() -> None:
    text = machine(
        signals="belt_speed: {at: plc1/ir/5, type: int32, word_order: little, byte_order: little, offset: -4, "
        "sentinel: [-1, 65535], limit: 3, grade: A}, running: {at: plc1/hr/3.11, invert: true, debounce_ms: 20}"
    )
    running, belt = settings_of(text).plan.signals
    assert (belt.type, belt.coding.word_order, belt.coding.byte_order) == (
        ValueType.INT32,
        Endian.LITTLE,
        Endian.LITTLE,
    )
    assert (belt.coding.offset, belt.coding.sentinel, belt.coding.limit, belt.grade) == (
        -4.0,
        (-1, 65535),
        3.0,
        Grade.A,
    )
    assert (running.bit, running.coding.invert, running.coding.debounce_off_ms, running.type) == (
        11,
        True,
        20,
        ValueType.BIT,
    )


def test_masks_codes_sentinels_and_debouncing_reach_the_plan() -> None:
    text = machine(
        signals="belt_speed: {at: plc1/ir/5, mask: 0x0FF0, sentinel: [all_ones, all_zeros]}, "
        "ambient_temp: {at: plc1/ir/6, type: int16, sentinel: [all_ones]}, "
        "running: {at: plc1/ir/5, mask: 0x000F, true_when: [3, 5], false_when: [0], debounce_ms: 20, "
        "debounce_off_ms: 0, sentinel: [all_ones]}"
    )
    signals = {signal.name: signal for signal in settings_of(text).plan.signals}
    running, belt = signals["running"], signals["belt_speed"]
    assert (belt.coding.mask, belt.coding.sentinel, signals["ambient_temp"].coding.sentinel) == (
        0x0FF0,
        (0xFF, 0),
        (-1,),
    )
    assert (running.coding.true_when, running.coding.false_when, running.coding.sentinel) == (
        (3, 5),
        (0,),
        (15,),
    )
    assert (running.type, running.coding.debounce_on_ms, running.coding.debounce_off_ms) == (
        ValueType.UINT16,
        20,
        0,
    )


def test_all_ones_of_a_mask_with_holes_are_the_ones_of_its_bits() -> None:
    text = machine(signals="belt_speed: {at: plc1/ir/5, mask: 0x0F0F, sentinel: [all_ones]}")
    (belt,) = settings_of(text).plan.signals
    assert compile_decoder(settings_of(text).plan.blocks[0], (belt,)).decode_all(b"\xff\xff") == [None]


def test_lost_monitoring_of_a_heartbeat_that_may_stand_longer_than_values_stay_fresh_says_so() -> None:
    text = machine().replace(
        'plc1: {url: "modbus+tcp://192.0.2.10"}',
        'plc1: {url: "modbus+tcp://192.0.2.10", heartbeat: {at: hr/0, stale_ms: 5000}}',
    )
    plc1, slow = settings_of(text).plan.devices.values()
    assert plc1.rules[0].detect_ms == 5000 + 200 + 10_000 + 200 + 50
    assert slow.rules[0].detect_ms == 3000 + 10_000 + 1000 + 50


def test_channels_whose_debouncing_differs_by_their_discrepancy_time_are_warned_about() -> None:
    guard = "kind: interlocked_door, channels: [{at: plc1/di/0, debounce_off_ms: %d}, {at: plc1/di/1, debounce_ms: 20}]"
    assert not [what for what in warnings_of(machine(g=guard % 519)) if "debounc" in what]
    (warning,) = [what for what in warnings_of(machine(g=guard % 520)) if "debounc" in what]
    assert "every opening or closing would look like a discrepancy" in warning


def test_the_debouncing_that_delays_detection_is_that_of_the_dangerous_change() -> None:
    text = machine(
        signals="running: {at: plc1/di/9, debounce_on_ms: 5, debounce_off_ms: 900}",
        g="kind: interlocked_door, channels: [{at: plc1/di/0, debounce_on_ms: 700, debounce_off_ms: 30}]",
    )
    (rule,) = settings_of(text).plan.machines[MachineId("m1")].guards[0].rules
    assert rule.detect_ms == 200 + 30 + 1000 + 200 + 50


def test_presence_checks_are_coded_bits_of_their_device_and_may_look_at_any_bit() -> None:
    text = machine(
        g="kind: interlocked_door, channels: [{at: plc1/hr/1.0, module: xs1}, {at: plc1/hr/1.1, module: xs1}]"
    ).replace(
        'plc1: {url: "modbus+tcp://192.0.2.10"}',
        'plc1: {url: "modbus+tcp://192.0.2.10", presence: {device: {at: ir/0, type: uint32, any_of: [4660]}, '
        "xs1: {at: hr/1, mask: 0xFF, none_of: [255]}, xs2: {at: di/7, none_of: [1]}}}",
    )
    plan = settings_of(text).plan
    checks = {item.name: plan.signals[item.signal] for item in plan.devices[DeviceId("plc1")].presence}
    assert list(checks) == ["device", "xs1", "xs2"]
    assert (checks["device"].type, checks["device"].coding.true_when) == (ValueType.UINT32, (4660,))
    assert (checks["xs1"].coding.mask, checks["xs1"].coding.true_when, checks["xs1"].coding.false_when) == (
        0xFF,
        (),
        (255,),
    )
    assert (checks["xs2"].coding.invert, checks["xs2"].type) == (True, ValueType.BIT)
    assert [signal.module for signal in plan.signals if signal.name == "ch_a"] == ["xs1"]


def test_every_signal_of_a_device_can_be_wired() -> None:
    text = machine().replace(
        'plc1: {url: "modbus+tcp://192.0.2.10"}',
        'plc1: {url: "modbus+tcp://192.0.2.10", heartbeat: {at: hr/0}, cfg_crc: {at: hr/1, type: uint32, approved: 7}, '
        "op_mode: {at: hr/3, map: {1: run}, run: [run]}, force_active: {at: di/0}, uptime_s: {at: hr/4, type: uint32}}",
    )
    names = [signal.name for signal in settings_of(text).plan.signals if signal.machine is None]
    assert names == ["heartbeat", "cfg_crc", "op_mode", "force_active", "uptime_s"]


def test_staleness_defaults_to_three_polls_but_at_least_two_seconds() -> None:
    devices = settings_of(machine()).plan.devices
    assert [device.stale_ms for device in devices.values()] == [2000, 3000]


def plant_of_doors(count: int) -> str:
    label = "检" * 40
    doors = "".join(
        f"      door-{n}: {{labels: {{zh: {label}, en: Door}}, kind: interlocked_door, channels: [{{at: plc1/di/{n}}}]}}\n"
        for n in range(count)
    )
    return (
        HEAD
        + f"machines:\n  m1:\n    labels: {{zh: 机, en: M}}\n    signals: {{running: {{at: plc1/di/1990}}}}\n    guards:\n{doors}"
    )


def test_a_machine_whose_birth_certificate_would_not_fit_is_refused_and_the_largest_that_fits_is_not() -> (
    None
):
    def is_refused(count: int) -> bool:
        document = parse(plant_of_doors(count).encode(), "agent.yaml", {})
        assert isinstance(document, Document)
        result = compile_settings(document)
        if isinstance(result, AgentSettings):
            (found,) = result.plan.machines.values()
            payload = encode_status(machine_model(found, result.plan.signals, 0, "0" * 26))
            assert len(payload) <= PAYLOAD_MAX_BYTES
            return False
        (problem,) = result
        assert (problem.line, problem.col) == (10, 3)
        assert "the birth certificate of m1 would have" in problem.what
        return True

    refused = [is_refused(count) for count in range(10, 400, 30)]
    assert refused[0] is False
    assert refused[-1] is True
    assert all(later or not earlier for earlier, later in pairwise(refused))


def test_the_report_shows_requests_detection_and_on_demand_every_rule(
    contract_settings: AgentSettings,
) -> None:
    report = check_report(contract_settings, rules=True, plan=True)
    assert "plc1/di/0…5  function 2, every 200 ms" in report
    assert "mixer-18/door-1  guard_open_motion  P1  at most 750 ms" in report
    for text in (
        "R01 guard_open_motion",
        "R09",
        "R17",
        "R22",
        "R29",
        "permitless_ms: 900000",
        "unreset_ms: 1800000",
    ):
        assert text in report
    plain = check_report(contract_settings, rules=False, plan=False)
    assert "function 2" not in plain
    assert "R17" not in plain
    assert "pa55" not in report


def test_the_reports_data_is_complete_json(contract_settings: AgentSettings) -> None:
    data = json.loads(json.dumps(check_data(contract_settings)))
    assert data["guards"]["mixer-18/door-1"]["rules"]["bypass_active"]["detect_ms"] == 1450
    assert data["devices"]["plc1"]["rules"]["monitoring_lost"]["on_delay_ms"] == 10_000
    assert [read["count"] for read in data["reads"]] == [6, 8, 1]
    assert data["defaults"]["monitoring_lost"]["window_s"] == 60


def test_signals_are_dense_and_their_blocks_know_them(contract_settings: AgentSettings) -> None:
    plan = contract_settings.plan
    homes = sorted(index for block in plan.blocks for index in block.signals)
    assert homes == [signal.id for signal in plan.signals]
    assert all(isinstance(signal, SignalPlan) for signal in plan.signals)
