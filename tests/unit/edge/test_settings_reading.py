"""What a device bears: rates, sizes, pauses and connections in the file, and the requests that keep to them."""

from __future__ import annotations

import pytest

from edge_agent.configfile import Document, parse
from edge_agent.domain.plan import CellPlan, RuleName
from edge_agent.settings import AgentSettings, compile_settings
from edge_agent.settings.report import check_data, check_report

FILE = """\
site: s
agent: a
labels: {zh: 网关, en: Gateway}
mqtt: {url: mqtt://127.0.0.1}
store: {path: a.db}
devices:
  plc1:
    url: modbus+tcp://192.0.2.10
  plc2:
    url: modbus+tcp://192.0.2.10
    unit: 2
machines:
  m1:
    labels: {zh: 机, en: Machine}
    signals:
      running: {at: plc1/di/100}
      speed: {at: plc2/hr/0, type: float64, rated: 10}
    guards:
      g:
        labels: {zh: 门, en: Door}
        kind: interlocked_door
        channels: [{at: plc1/di/0}, {at: plc1/di/40}]
        bypass: {at: plc1/di/200}
"""


def result_of(*edits: tuple[str, str]) -> AgentSettings | list[str]:
    text = FILE
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    document = parse(text.encode(), "agent.yaml", {})
    assert isinstance(document, Document), document
    result = compile_settings(document)
    return result if isinstance(result, AgentSettings) else [str(problem) for problem in result]


def plan_of(*edits: tuple[str, str]) -> CellPlan:
    result = result_of(*edits)
    assert isinstance(result, AgentSettings), result
    return result.plan


DEVICE = "    url: modbus+tcp://192.0.2.10\n  plc2"


def with_device(keys: str) -> tuple[str, str]:
    return DEVICE, DEVICE.replace("\n  plc2", f"\n    {keys}\n  plc2")


def requests(plan: CellPlan) -> list[tuple[str, int, int, int]]:
    return [(block.device, block.start, block.count, block.poll_ms) for block in plan.blocks]


def test_a_signal_with_a_rate_of_its_own_gets_a_request_of_its_own() -> None:
    plan = plan_of(("running: {at: plc1/di/100}", "running: {at: plc1/di/100, poll_ms: 50}"))
    assert requests(plan) == [("plc1", 100, 1, 50), ("plc1", 0, 201, 200), ("plc2", 0, 4, 200)]


def test_a_slower_rate_gives_its_values_and_their_guard_a_longer_staleness() -> None:
    slow = ("channels: [{at: plc1/di/0}, {at: plc1/di/40}]", "channels: [{at: plc1/di/0, poll_ms: 1000}]")
    bypass = ("bypass: {at: plc1/di/200}", "bypass: {at: plc1/di/200, poll_ms: 1000}")
    plan = plan_of(slow, bypass)
    assert [(block.start, block.stale_ms) for block in plan.blocks[:2]] == [(100, 2000), (0, 3000)]
    assert plan.machines["m1"].guards[0].stale_ms == 3000  # type: ignore[index]


def test_every_signal_knows_the_rate_at_which_it_is_really_read() -> None:
    plan = plan_of(("bypass: {at: plc1/di/200}", "bypass: {at: plc1/di/200, poll_ms: 60}"))
    assert {signal.name: signal.poll_ms for signal in plan.signals} == {
        "running": 200,
        "speed": 200,
        "ch_a": 60,
        "ch_b": 60,
        "bypass": 60,
    }


def test_detection_counts_the_rate_of_the_slowest_signal_that_a_rule_reads() -> None:
    plan = plan_of(
        ("running: {at: plc1/di/100}", "running: {at: plc1/di/100, poll_ms: 300}"),
        ("bypass: {at: plc1/di/200}", "bypass: {at: plc1/di/200, poll_ms: 50}"),
    )
    detect_ms = {rule.name: rule.detect_ms for rule in plan.machines["m1"].guards[0].rules}  # type: ignore[index]
    assert detect_ms[RuleName.GUARD_OPEN_MOTION] == 300 + 1000 + 300 + 50
    assert detect_ms[RuleName.CHANNEL_DISCREPANCY] == 50 + 500 + 50 + 50


def test_a_devices_limits_shape_its_requests() -> None:
    plan = plan_of(with_device("gap_bits: 10\n    max_bits: 60"))
    assert [(block.start, block.count) for block in plan.blocks] == [(0, 41), (100, 1), (200, 1), (0, 4)]


def test_pauses_and_connections_reach_the_plan() -> None:
    link = with_device("pause_ms: 20\n    connect_pause_ms: 500\n    connections: 2")
    plan = plan_of(link, ("    unit: 2", "    unit: 2\n    connections: 2"))
    first, second = plan.devices.values()
    assert (first.pause_ms, first.connect_pause_ms, first.connections) == (20, 500, 2)
    assert (second.pause_ms, second.connect_pause_ms, second.connections) == (0, 0, 2)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (with_device("max_bits: 2001"), "9:15: `max_bits` is 2001, but must be at most 2000"),
        (with_device("max_registers: 126"), "9:20: `max_registers` is 126, but must be at most 125"),
        (with_device("connections: 5"), "9:18: `connections` is 5, but must be at most 4"),
        (with_device("pause_ms: -1"), "9:15: `pause_ms` is -1, but must be at least 0"),
        (
            with_device("connections: 2"),
            "10:3: `connections` is 1 here and 2 at plc1, on the same url — write the same number at both",
        ),
        (
            with_device("max_bits: 40"),
            "20:7: the channels of g are 41 items apart, and plc1 gives 40 in one answer: they would differ by a poll",
        ),
        (
            ("{at: plc1/di/40}]", "{at: plc1/di/2000}]"),
            "19:7: the channels of g are 2001 items apart, and plc1 gives 2000 in one answer: they would differ by a poll",
        ),
        (
            ("    unit: 2", "    unit: 2\n    max_registers: 3"),
            "18:19: a float64 has 4 registers, more than max_registers of 3 — write max_registers: 4 at plc2",
        ),
        (
            ("running: {at: plc1/di/100}", "running: {at: plc1/di/100, poll_ms: 5}"),
            "16:43: `poll_ms` is 5, but must be at least 10",
        ),
        (
            with_device("max_rps: 4"),
            "7:3: plc1 needs 1 request every 200 ms, more than max_rps of 4 — write poll_ms: 250 or max_rps: 5",
        ),
    ],
    ids=lambda value: value[1][:60] if isinstance(value, tuple) else None,
)
def test_what_a_device_cannot_do_is_refused_at_its_place(edit: tuple[str, str], expected: str) -> None:
    problems = result_of(edit)
    assert isinstance(problems, list), "the fault was not found"
    (problem,) = problems
    assert problem.startswith(f"agent.yaml:{expected}")
    assert " — " in problem


def test_what_lies_behind_rtu_framing_is_one_wire() -> None:
    one = DEVICE.replace("modbus+tcp://192.0.2.10", "modbus+rtuovertcp://192.0.2.10:4001\n    connections: 2")
    other = ("192.0.2.10\n    unit: 2", "192.0.2.11\n    unit: 2")
    problems = result_of((DEVICE, one), other)
    assert isinstance(problems, list)
    assert any("but a line on RTU framing is one wire" in problem for problem in problems)


def test_a_poll_as_long_as_the_time_allowed_for_stopping_is_warned_about() -> None:
    result = result_of(with_device("poll_ms: 1000"))
    assert isinstance(result, AgentSettings)
    assert [warning.what for warning in result.warnings] == [
        "guard_open_motion: polls every 1000 ms are as long as its delay: a stop in time may look late"
    ]


def test_a_poll_that_one_lost_reply_makes_longer_than_any_hold_is_refused() -> None:
    slow = ("{at: plc1/di/0}, {at: plc1/di/40}", "{at: plc1/di/0, poll_ms: 20000}")
    problems = result_of(slow, ("bypass: {at: plc1/di/200}", "bypass: {at: plc1/di/300, poll_ms: 20000}"))
    assert isinstance(problems, list)
    assert [problem.split(" — ")[0] for problem in problems] == [
        "agent.yaml:19:7: bypass_active: polls every 20000 ms are longer than the 10000 ms that one lost reply may take",
        "agent.yaml:19:7: guard_open_motion: polls every 20000 ms are longer than the 10000 ms that one lost reply may take",
    ]


def test_the_plan_says_what_each_request_costs_and_how_much_of_its_limit_a_device_uses() -> None:
    result = result_of()
    assert isinstance(result, AgentSettings)
    report = check_report(result, rules=False, plan=True)
    assert "  modbus+tcp://192.0.2.10:502: 10.0 requests/s\n" in report
    assert "    plc1, unit 1: 5.0 requests/s, 10 % of its max_rps of 50\n" in report
    assert "plc1/di/0…200  function 2, every 200 ms, 201 items, 12 bytes out, 35 in: " in report
    data = check_data(result)
    assert data["links"] == [
        {
            "url": "modbus+tcp://192.0.2.10:502",
            "transport": "modbus+tcp",
            "devices": ["plc1", "plc2"],
            "requests_per_min": 600,
            "baud": None,
            "busy_pct": None,
        }
    ]


def test_a_serial_line_has_one_speed() -> None:
    """Two links would open it, and the second never could."""
    line = "modbus+rtu:///dev/ttyUSB0?baud="
    problems = result_of(
        (DEVICE, DEVICE.replace("modbus+tcp://192.0.2.10", f"'{line}9600'")),
        ("modbus+tcp://192.0.2.10\n    unit: 2", f"'{line}19200'\n    unit: 2"),
    )
    assert isinstance(problems, list)
    assert any("10:10: the same serial line is set differently at plc1" in told for told in problems), (
        problems
    )
