"""Seeded faults: each mistake in a good configuration is found, at its line and column, with a way to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.configfile import Document, Problem, parse
from edge_agent.settings import AgentSettings, compile_settings, load

GOOD = """\
site: changyi
agent: gw-01
labels: {zh: 网关, en: Gateway}
areas: {moulding: {labels: {zh: 造型, en: Moulding}}}
mqtt:
  url: mqtt://127.0.0.1:1883
store: {path: var/gw.db}
devices:
  plc1:
    url: modbus+tcp://192.0.2.10:502
    unit: 1
    poll_ms: 200
    timeout_ms: 500
    stale_ms: 2000
    max_rps: 50
    heartbeat: {at: hr/0, stale_ms: 5000}
machines:
  mixer-18:
    labels: {zh: 混砂机, en: Mixer}
    area: moulding
    kind: mixer
    signals:
      running: {at: plc1/di/4}
      speed: {at: plc1/ir/10, type: uint16, rated: 24}
      mode: {at: plc1/hr/7, map: {0: auto, 1: setup}}
      estop_ok: {at: plc1/di/9}
    guards:
      door-1:
        labels: {zh: 门, en: Door}
        kind: interlocked_door
        channels: [{at: plc1/di/0}, {at: plc1/di/1}]
        locked: {at: plc1/di/2}
        bypass: {at: plc1/di/3}
        rules:
          channel_discrepancy: {on_delay_ms: 500}
"""

FAULTS = [
    ("site: changyi", "site: Changyi", '1:7: `site`: "Changyi" is no id'),
    ("site: changyi", "siet: changyi", "1:1: unknown key `siet` — did you mean `site`?"),
    ("site: changyi", "site: 18", "1:7: `site` must be text, not 18"),
    ("labels: {zh: 网关, en: Gateway}", "labels: {zh: 网关}", "3:1: `en` is missing"),
    ("labels: {zh: 网关, en: Gateway}", 'labels: {zh: " ", en: Gateway}', "3:14: `zh`: the text is blank"),
    ("url: mqtt://127.0.0.1:1883", "url: http://127.0.0.1", '6:8: `url`: "http" is no kind of broker'),
    ("url: mqtt://127.0.0.1:1883", "url: mqtt://me:secret@127.0.0.1", "6:8: `url`: a user or password stands in the URL"),
    ("url: mqtt://127.0.0.1:1883", "url: mqtt://h\n  password: secret\n  username: me", "7:3: a password stands in the configuration"),
    ("url: mqtt://127.0.0.1:1883", "url: mqtt://h\n  username: me\n  password_file: none", "8:18: the secret file none does not exist"),
    ("url: mqtt://127.0.0.1:1883", "url: mqtt://h\n  ca_file: none.pem", "7:12: `ca_file`: none.pem cannot be read"),
    ("url: mqtt://127.0.0.1:1883", "url: mqtt://h\n  delivery: sometimes", '7:13: `delivery` is "sometimes", which is not known'),
    ("store: {path: var/gw.db}", "store: {path: var/gw.db, size_max_mb: 1}", "7:39: `size_max_mb` is 1, but must be at least 16"),
    ("url: modbus+tcp://192.0.2.10:502", "url: modbus://192.0.2.10", '10:10: `url`: "modbus" is no kind of link'),
    ("url: modbus+tcp://192.0.2.10:502", "url: 192.0.2.10:502", "10:10: `url`: this is no URL"),
    ("url: modbus+tcp://192.0.2.10:502", "url: modbus+tcp://192.0.2.10:99999", "10:10: `url`: this is no URL"),
    ("url: modbus+tcp://192.0.2.10:502", "url: modbus+rtu:///dev/ttyUSB0?baud=7", '10:10: `url`: "7" is no baud rate'),
    ("    url: modbus+tcp://192.0.2.10:502\n", "", "9:3: `url` is missing"),
    ("unit: 1", "unit: 256", "11:11: `unit` is 256, but must be at most 255"),
    ("poll_ms: 200", "poll_ms: 5", "12:14: `poll_ms` is 5, but must be at least 10"),
    ("poll_ms: 200", "poll_ms: 200.5", "12:14: `poll_ms` must be a whole number, not 200.5"),
    ("poll_ms: 200", "poll_ms: ${POLL}", "12:14: the environment variable POLL is not set"),
    ("poll_ms: 200", "poll_ms: 200\n    poll_ms: 300", "13:5: the key `poll_ms` stands twice, first in line 12"),
    ("timeout_ms: 500", "timeout_ms: 2000", "13:17: `timeout_ms` is 2000, not below stale_ms of 2000"),
    ("timeout_ms: 500\n    stale_ms: 2000", "timeout_ms: 100\n    stale_ms: 399", "14:15: `stale_ms` is 399, less than two polls of 200 ms"),
    ("max_rps: 50", "max_rps: 10", "9:3: plc1 needs 3 requests every 200 ms, more than max_rps of 10 — write poll_ms: 300 or max_rps: 15"),
    ("{at: hr/0, stale_ms: 5000}", "{at: plc2/hr/0}", "16:21: `at` names another device than plc1"),
    ("{at: hr/0, stale_ms: 5000}", "{at: hr/0, stale_ms: 300}", "16:37: `heartbeat`: 300 ms are less than two polls"),
    ("{at: hr/0, stale_ms: 5000}", "{at: di/20}", "16:21: this signal is a number, not one bit"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/9, mask: 0xF0}", "32:39: a masked field is no bit by itself — add true_when"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/9, mask: 0xF0, true_when: [16]}", "32:57: `true_when`: 16 cannot be, the raw value is 0 to 15"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/9, true_when: [1], false_when: [0, 1]}", "32:65: `false_when`: 1 stands in `true_when` too"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/9, false_when: [0]}", "32:33: `false_when` stands alone"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/9, true_when: [1], invert: true}", "32:49: `invert` has no meaning beside `true_when`"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/9, type: float32, true_when: [1]}", "32:39: codes are whole numbers"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/di/2, true_when: [0]}", "32:33: `true_when` has no meaning for one bit — say invert: true"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/9.2, mask: 4}", "32:35: `mask` has no meaning for one bit"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/di/2, module: xs1}", "32:41: plc1 has no presence check for a module xs1"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/7.1}", "32:22: locked reads the same bit as mixer-18/mode in line 25"),
    ("ir/10, type: uint16", "ir/10, type: int16, mask: 0xFF", "24:50: `mask` takes bits out of a whole unsigned value"),
    ("ir/10, type: uint16", "ir/10, mask: 0x1FFFF", "24:37: `mask` is 0x1ffff, wider than uint16"),
    ("ir/10, type: uint16", "ir/10, debounce_off_ms: 5", "24:31: `debounce_off_ms` has no meaning for a number"),
    ("ir/10, type: uint16", "ir/10, counter_max: 5", "24:31: `counter_max` has no meaning for speed"),
    ("ir/10, type: uint16", "ir/10, type: int16, sentinel: [-1, 65535]", "24:59: `sentinel`: 65535 cannot be, the raw value is -32768 to 32767"),
    ("ir/10, type: uint16", "ir/10, mask: 0xFF, sentinel: [256]", "24:54: `sentinel`: 256 cannot be"),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/hr/9, mask: 0x0505, true_when: [0x500, 2]}", "32:66: `true_when`: 2 cannot be"),
    ("locked: {at: plc1/di/2}", "open_count: {at: plc1/hr/9, mask: 0xF0F}", "32:43: open_count is a counter, and the bits of its `mask` must stand side by side"),
    ("ir/10, type: uint16", "ir/10, sentinel: [all_zeroes]", '24:42: `sentinel[0]`: "all_zeroes" is no raw value'),
    ("locked: {at: plc1/di/2}", "open_count: {at: plc1/hr/9, type: int32}", "32:43: open_count is a counter, and cannot be int32"),
    ("locked: {at: plc1/di/2}", "open_count: {at: plc1/hr/9, scale: 2}", "32:37: `scale` has no meaning for a counter"),
    ("locked: {at: plc1/di/2}", "open_count: {at: plc1/hr/9, mask: 0xFF, counter_max: 256}", "32:62: `counter_max` is 256, but 8 bits hold no such value"),
    ("max_rps: 50", "presence: {device: {at: ir/0}}", "15:16: nothing that could be read here would deny the presence"),
    ("max_rps: 50", "presence: {device: {at: di/9, any_of: [0, 1]}}", "15:16: nothing that could be read here would deny the presence"),
    ("max_rps: 50", "presence: {device: {at: ir/0, any_of: [65536]}}", "15:44: `any_of`: 65536 cannot be"),
    ("max_rps: 50", "presence: {device: {at: plc2/ir/0, any_of: [1]}}", "15:29: `at` names another device than plc1"),
    ("area: moulding", "area: molding", "20:11: there is no area molding — did you mean moulding?"),
    ("running: {at: plc1/di/4}", "runing: {at: plc1/di/4}", "23:7: unknown key `runing` — did you mean `running`?"),
    ("running: {at: plc1/di/4}", "running: {at: plc2/di/4}", "23:21: `at`: there is no device plc2 — did you mean plc1?"),
    ("running: {at: plc1/di/4}", "running: {at: plc1/40005}", '23:21: `at`: "plc1/40005" is no address — addresses are 0-based'),
    ("running: {at: plc1/di/4}", "running: {at: plc1/hr/400001.0}", "23:21: `at`: 400001 is beyond the last address 65535"),
    ("running: {at: plc1/di/4}", "running: {at: plc1/4x/4}", '23:21: `at`: "4x" is no table'),
    ("running: {at: plc1/di/4}", "running: {at: plc1/di/4.1}", "23:21: `at`: di/4 is one bit already"),
    ("running: {at: plc1/di/4}", "running: {at: plc1/hr/4.16}", "23:21: `at`: a register has no bit 16"),
    ("running: {at: plc1/di/4}", "running: {at: plc1/hr/4}", "23:21: `at`: hr/4 is a whole register — say which bit"),
    ("running: {at: plc1/di/4}", "running: {at: plc1/hr/4, type: uint16}", "23:38: this signal is one bit, not a number"),
    ("running: {at: plc1/di/4}", "running: {at: plc1/di/4, type: int16}", "23:38: one bit cannot be int16"),
    ("running: {at: plc1/di/4}", "running: {at: plc1/di/4, scale: 2}", "23:32: `scale` has no meaning for one bit"),
    ("running: {at: plc1/di/4}", "running: {at: di/4}", '23:21: `at`: "di/4" names no device — write DEVICE/di/4'),
    ("running: {at: plc1/di/4}", "running: {at: plc1/di/0}", "31:25: ch_a reads the same bit as mixer-18/running in line 23"),
    ("type: uint16, rated: 24", "type: uint17, rated: 24", '24:37: `type` is "uint17", which is not known — did you mean uint16?'),
    ("type: uint16, rated: 24", "type: uint16, scale: 0", "24:52: `scale` is 0"),
    ("ir/10, type: uint16", "ir/65535, type: float32", "24:19: the float32 at 65535 ends beyond 65535"),
    ("ir/10, type: uint16", "ir/10, invert: true", "24:31: `invert` has no meaning for a number"),
    ("{at: plc1/hr/7, map: {0: auto, 1: setup}}", "{at: plc1/hr/7}", "25:7: a mode needs `map`"),
    ("map: {0: auto, 1: setup}", "map: {0: auto, x: setup}", "25:44: `map`: x is no raw value"),
    ("map: {0: auto, 1: setup}", f"map: {{0: auto, 1: {'w' * 81}}}", "25:47: `map`: the word for 1 is none"),
    ("map: {0: auto, 1: setup}", "map: {0: auto, 1: ''}", "25:47: `map`: the word for 1 is none"),
    ("map: {0: auto, 1: setup}", "map: {0: auto, 0x0: setup}", "25:44: `map`: 0 stands twice"),
    ("hr/7, map", "hr/0, map", "25:18: mode reads the same bit as heartbeat in line 16"),
    ("      door-1:", "      Door 1:", '28:7: `Door 1`: "Door 1" is no id'),
    ("      door-1:", "      estop:", "26:7: estop_ok is shorthand for the guard estop, which exists already"),
    ("kind: interlocked_door", "kind: interlocked_dor", '30:15: `kind` is "interlocked_dor", which is not known — did you mean interlocked_door?'),
    ("        channels: [{at: plc1/di/0}, {at: plc1/di/1}]\n", "", "28:7: the guard door-1 has no channels"),
    ("{at: plc1/di/1}]", "{at: plc1/di/1}, {at: plc1/di/12}]", "31:19: `channels` has too many entries"),
    ("{at: plc1/di/1}]", "{at: plc1/di/0}]", "31:42: ch_b reads the same bit as mixer-18/door-1/ch_a in line 31 — two signals of one guard"),
    ("{at: plc1/di/1}]", "{at: plc1/di/0, shared: true}]", "31:42: ch_b reads the same bit"),
    ("{at: plc1/di/1}]", "plc1/di/1]", '31:37: `channels[1]` must be a mapping, not "plc1/di/1"'),
    ("locked: {at: plc1/di/2}", "locked: {at: plc1/di/2, debounce_ms: -1}", "32:46: `debounce_ms` is -1, but must be at least 0"),
    ("        bypass: {at: plc1/di/3}\n        rules:\n", "        rules:\n          bypass_active: {}\n", "34:11: nothing can judge bypass_active"),
    ("channel_discrepancy: {on_delay_ms: 500}", "chanel_discrepancy: {}", "35:11: unknown key `chanel_discrepancy` — did you mean `channel_discrepancy`?"),
    ("channel_discrepancy: {on_delay_ms: 500}", "channel_discrepancy: {on_delay: 500}", "35:33: unknown key `on_delay` — did you mean `on_delay_ms`?"),
    ("channel_discrepancy: {on_delay_ms: 500}", "channel_discrepancy: {on_delay_ms: 300}", "35:46: channel_discrepancy: a delay of 300 ms is shorter than 400 ms"),
    ("channel_discrepancy: {on_delay_ms: 500}", "guard_open_motion: {on_delay_ms: 100}", "35:44: guard_open_motion: a delay of 100 ms is shorter than 200 ms"),
    ("channel_discrepancy: {on_delay_ms: 500}", "channel_discrepancy: {priority: P5}", '35:43: `priority` is "P5", which is not known'),
    ("channel_discrepancy: {on_delay_ms: 500}", "channel_discrepancy: {unknown_delay_ms: 5}", "35:33: `unknown_delay_ms` has no meaning for channel_discrepancy"),
    ("channel_discrepancy: {on_delay_ms: 500}", "monitoring_lost: {}", "35:11: unknown key `monitoring_lost`"),
    ("max_rps: 50", "rules: {monitoring_lost: {on_delay_ms: 90000}}", "15:30: monitoring_lost: on_delay_ms is longer than its window"),
]  # fmt: skip


def found_in(text: str) -> list[str]:
    document = parse(text.encode(), "agent.yaml", {})
    result = document if isinstance(document, list) else compile_settings(document)
    assert isinstance(result, list), "the fault was not found"
    return [str(problem) for problem in result]


def test_the_base_of_all_faults_is_good() -> None:
    document = parse(GOOD.encode(), "agent.yaml", {})
    assert isinstance(document, Document)
    result = compile_settings(document)
    assert isinstance(result, AgentSettings), result
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"), FAULTS, ids=[fault[2].split(" ")[0] + fault[1][:40] for fault in FAULTS]
)
def test_each_seeded_fault_is_found_once_at_its_place(old: str, new: str, expected: str) -> None:
    assert GOOD.count(old) == 1, "the fault must be seeded in one place"
    (problem,) = found_in(GOOD.replace(old, new))
    assert problem.startswith(f"agent.yaml:{expected}")
    assert " — " in problem


def test_faults_of_all_stages_are_reported_together_without_their_consequences() -> None:
    text = (
        GOOD.replace("poll_ms: 200", "poll_ms: often")
        .replace("area: moulding", "area: melting")
        .replace("running: {at: plc1/di/4}", "running: {at: plc9/di/4}")
        .replace("channels: [{at: plc1/di/0}, {at: plc1/di/1}]", "channels: [{at: 3}, {at: plc1/di/1}]")
        .replace("url: modbus+tcp://192.0.2.10:502", "url: nowhere")
    )
    assert [problem.split(": ", 1)[0] for problem in found_in(text)] == [
        "agent.yaml:10:10",
        "agent.yaml:12:14",
        "agent.yaml:20:11",
        "agent.yaml:23:21",
        "agent.yaml:31:25",
    ]


def test_a_missing_top_level_key_is_found_beside_others() -> None:
    problems = found_in(GOOD.replace("agent: gw-01\n", "").replace("unit: 1", "unit: one"))
    assert [problem.split(" ", 1)[0] for problem in problems] == ["agent.yaml:1:1:", "agent.yaml:10:11:"]


LINES = GOOD.splitlines(keepends=True)


@pytest.mark.thorough
@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage_to_a_good_file_gives_settings_or_problems_and_never_a_traceback(
    data: st.DataObject,
) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(lines) - 1))
        line = lines[index]
        at = data.draw(st.integers(0, len(line)))
        drop = data.draw(st.integers(0, 12))
        lines[index] = (
            line[:at] + data.draw(st.text("0: {}[],-a~\n.x'\"&*!|plc", max_size=6)) + line[at + drop :]
        )
    document = parse("".join(lines).encode(), "agent.yaml", {})
    result = document if isinstance(document, list) else compile_settings(document)
    assert isinstance(result, AgentSettings) or result
    if isinstance(result, list):
        assert all(isinstance(problem, Problem) and problem.mend for problem in result)


CSV_HEAD = "machine,guard,signal,at,type,scale,unit,invert\n"


@pytest.mark.parametrize(
    ("csv", "expected"),
    [
        (CSV_HEAD + "mixer-18,,zero_sped,plc1/di/5,,,,\n", "2:11: a machine has no signal zero_sped — did you mean zero_speed?"),
        (CSV_HEAD + "mixer-81,,zero_speed,plc1/di/5,,,,\n", "2:1: there is no machine mixer-81 — did you mean mixer-18?"),
        (CSV_HEAD + "mixer-18,dor-1,dev_fault,plc1/di/5,,,,\n", "2:10: mixer-18 has no guard dor-1 — did you mean door-1?"),
        (CSV_HEAD + "\nmixer-18,,zero_speed,plc1/hr/5,,,,\n", "3:22: `at`: hr/5 is a whole register"),
        (CSV_HEAD + "mixer-18,,zero_speed,plc1/di/4,,,,\n", "2:22: zero_speed reads the same bit as mixer-18/running in line 23"),
        (CSV_HEAD + "mixer-18,,running,plc1/di/5,,,,\n", "2:1: the signal running is wired twice, first in line 23"),
        (CSV_HEAD + "mixer-18,door-1,ch_a,plc1/di/5,,,,\n", "2:1: the signal ch_a is wired twice"),
        (CSV_HEAD + "mixer-18,,bearing_temp,plc1/ir/5,int16,tenth,,\n", '2:40: `scale` must be a number, not "tenth"'),
        (CSV_HEAD + "mixer-18,,zero_speed,plc1/di/5,,,,maybe\n", '2:35: `invert` must be true or false, not "maybe"'),
        (CSV_HEAD + "mixer-18,,zero_speed\n", "2:1: 3 cells instead of 8"),
        ("machine,guard,signal,adress\nmixer-18,,zero_speed,plc1/di/5\n", "2:1: `at` is missing"),
        ("machine,machine\n", "1:9: the column `machine` stands twice"),
        ("", "1:1: the table is empty"),
    ],
)  # fmt: skip
def test_faults_in_the_point_list_are_found_in_the_point_list(
    tmp_path: Path, csv: str, expected: str
) -> None:
    (tmp_path / "points.csv").write_text(csv)
    (tmp_path / "agent.yaml").write_text(GOOD + "signals_csv: points.csv\n")
    result = load(tmp_path / "agent.yaml", {})
    assert isinstance(result, list)
    assert str(result[0]).startswith(f"{tmp_path}/points.csv:{expected}")


def test_a_point_list_that_is_no_text_or_not_there_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(GOOD + "signals_csv: points.csv\n")
    missing = load(tmp_path / "agent.yaml", {})
    assert isinstance(missing, list)
    assert str(missing[0]).startswith(f"{tmp_path}/agent.yaml:36:14: there is no file")
    (tmp_path / "points.csv").write_bytes(CSV_HEAD.encode() + b"\xff\xff\n")
    garbled = load(tmp_path / "agent.yaml", {})
    assert isinstance(garbled, list)
    assert "points.csv:2:1: this is neither UTF-8 nor GB 18030 text" in str(garbled[0])


@pytest.mark.thorough
@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_as_point_list_give_settings_or_problems(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("plant")
    (folder / "points.csv").write_bytes(CSV_HEAD.encode() + content)
    (folder / "agent.yaml").write_text(GOOD + "signals_csv: points.csv\n")
    result = load(folder / "agent.yaml", {})
    assert isinstance(result, AgentSettings) or result
