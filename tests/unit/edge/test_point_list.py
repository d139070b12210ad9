"""Point lists as spreadsheets write them: what can only be meant one way is read so."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.settings import AgentSettings, load

HEAD = """\
site: changyi
agent: gw-01
labels: {zh: 网关, en: Gateway}
mqtt: {url: mqtt://127.0.0.1:1883}
store: {path: var/gw.db}
signals_csv: points.csv
devices:
  plc1: {url: modbus+tcp://192.0.2.10}
machines:
  mixer-18:
    labels: {zh: 混砂机, en: Mixer}
    guards:
      door-1: {labels: {zh: 门, en: Door}, kind: interlocked_door}
"""

PLAIN = """\
machine,guard,signal,at,type,scale,unit,invert
mixer-18,,running,plc1/di/9,,,,
mixer-18,,bearing_temp,plc1/ir/5,int16,0.1,°C,
mixer-18,door-1,ch_a,plc1/di/3,,,,1
mixer-18,door-1,ch_b,plc1/di/4,,,,1
"""

CHINESE = PLAIN.replace(
    "machine,guard,signal,at,type,scale,unit,invert", "机器,防护,信号,地址,类型,系数,单位,取反"
)


def settings_with(folder: Path, content: bytes) -> AgentSettings:
    (folder / "points.csv").write_bytes(content)
    (folder / "agent.yaml").write_text(HEAD)
    found = load(folder / "agent.yaml", {})
    assert isinstance(found, AgentSettings), found
    return found


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace(",", ";").replace("0.1", "0,1").encode(),
        PLAIN.replace(",", "\t").encode("utf-16"),
        CHINESE.encode(),
        CHINESE.replace("°C", "℃").encode("gb18030"),
        PLAIN.replace("plc1/di/9", "ｐｌｃ１／ｄｉ／９").encode(),
        PLAIN.replace("plc1/di/9", "'plc1/di/9").encode(),
        PLAIN.replace("Machine", "MACHINE").replace("guard,", "Guard,", 1).encode(),
        PLAIN.replace("mixer-18,,running", '"mixer-18","","running"').encode(),
    ],
    ids=[
        "bom",
        "crlf",
        "semicolon",
        "utf-16",
        "chinese",
        "gb18030",
        "full-width",
        "apostrophe",
        "case",
        "quoted",
    ],
)
def test_one_list_in_every_spelling_is_one_plan(tmp_path: Path, content: bytes) -> None:
    plain = settings_with(tmp_path, PLAIN.encode())
    assert settings_with(tmp_path, content).plan == plain.plan


def test_a_table_that_runs_on_from_one_is_doubted(tmp_path: Path) -> None:
    rows = PLAIN.replace("di/9", "di/1").replace("di/3", "di/2").replace("di/4", "di/3")
    more = "mixer-18,door-1,locked,plc1/di/4,,,,\n"
    (warning,) = [
        str(item)
        for item in settings_with(tmp_path, (rows + more).encode()).warnings
        if "1-based" in str(item)
    ]
    assert warning.startswith(f"{tmp_path}/points.csv:2:")
    assert "0-based" in warning


def test_a_table_that_begins_at_zero_is_not_doubted(tmp_path: Path) -> None:
    rows = PLAIN.replace("di/9", "di/0").replace("di/3", "di/1").replace("di/4", "di/2")
    more = "mixer-18,door-1,locked,plc1/di/3,,,,\nmixer-18,door-1,bypass,plc1/di/4,,,,\n"
    assert "1-based" not in str(settings_with(tmp_path, (rows + more).encode()).warnings)


def test_a_point_list_says_how_a_value_is_coded_as_the_file_does(tmp_path: Path) -> None:
    rows = """\
machine,guard,signal,at,mask,true_when,false_when,sentinel,map,poll_ms,debounce_off_ms,word_order,type,counter_max
mixer-18,,running,plc1/hr/9,0x0F,1 | 3,0,all_ones,,,40,,,
mixer-18,,mode,plc1/hr/9,0xF0,,,,0=auto | 0x1=setup,1000,,,,
mixer-18,door-1,ch_a,plc1/di/3,,,,,,,,,,
mixer-18,door-1,open_count,plc1/ir/3,,,,,,,,little,uint32,9999
"""
    signals = {item.name: item for item in settings_with(tmp_path, rows.encode()).plan.signals}
    running, mode, count = (signals[name].coding for name in ("running", "mode", "open_count"))
    assert (running.mask, running.true_when, running.false_when, running.sentinel) == (
        15,
        (1, 3),
        (0,),
        (15,),
    )
    assert (running.debounce_on_ms, running.debounce_off_ms) == (0, 40)
    assert (mode.mask, mode.map) == (0xF0, {0: "auto", 1: "setup"})
    assert (count.counter_max, count.word_order.value) == (9999, "little")


def test_codes_that_are_none_are_refused_in_their_cell(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(
        "machine,guard,signal,at,true_when,map\n"
        "mixer-18,,running,plc1/hr/9,1 | x,\n"
        "mixer-18,,mode,plc1/hr/8,,auto\n"
        "mixer-18,door-1,ch_a,plc1/di/3,,\n"
    )
    (tmp_path / "agent.yaml").write_text(HEAD)
    found = load(tmp_path / "agent.yaml", {})
    assert isinstance(found, list)
    told = "\n".join(str(problem) for problem in found)
    assert "points.csv:2:29: `true_when" in told, told
    assert 'points.csv:3:27: `map`: "auto" is no map — write 0=auto | 1=setup' in told, told
