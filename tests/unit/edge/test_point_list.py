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
