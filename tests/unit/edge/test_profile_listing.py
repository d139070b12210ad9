"""`guardwatch-agent profiles`: what it prints of the shipped profiles and of a plant's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.app.exits import Exit
from edge_agent.app.profiles import list_profiles, show_profile
from edge_agent.settings.profile import shipped_profiles

Capture = pytest.CaptureFixture[str]


def test_the_list_names_each_profile_in_both_languages(capsys: Capture) -> None:
    assert list_profiles(as_json=False) is Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shipped_profiles())
    assert any(
        line.startswith("delta-dvp ") and "台达 DVP" in line and "Delta DVP PLC" in line for line in lines
    )


def test_the_list_as_json_is_one_document(capsys: Capture) -> None:
    assert list_profiles(as_json=True) is Exit.OK
    listed = json.loads(capsys.readouterr().out)["profiles"]
    assert [item["id"] for item in listed] == list(shipped_profiles())
    assert {"zh", "en"} == set(listed[0]["labels"])


def test_a_profile_is_shown_with_its_points_cautions_and_forbidden_areas(capsys: Capture) -> None:
    assert show_profile("pilz-pnozmulti2", None, as_json=False) is Exit.OK
    said = capsys.readouterr().out
    assert "o0 … o127                          di/8192 … di/8319" in said
    assert "not read co/0 to 127: 虚拟输入，由客户端写入 · virtual inputs, written by clients" in said
    assert "unverified (led{n}, " in said
    assert "r4_led0 … r4_led3                  ir/1118 mask 0x000f … ir/1118 mask 0xf000" in said


@pytest.mark.parametrize("name", shipped_profiles())
def test_a_profile_as_json_holds_every_point(name: str, capsys: Capture) -> None:
    assert show_profile(name, None, as_json=True) is Exit.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["id"] == name
    for point in shown["points"]:
        assert set(point) >= {"name", "at", "labels", "unverified"}


def test_a_points_address_is_told(capsys: Capture) -> None:
    assert show_profile("delta-dvp", "X10", as_json=False) is Exit.OK
    assert capsys.readouterr().out.startswith("X10  di/1032  输入 X10 · Input X10\n")


def test_what_nobody_read_in_a_manual_is_told_with_the_point(capsys: Capture) -> None:
    assert show_profile("schmersal-sd", "s3_response", as_json=True) is Exit.OK
    shown = json.loads(capsys.readouterr().out)
    assert (shown["at"], shown["mask"]) == ("hr/3", 0xFF00)
    assert len(shown["unverified"]) == 1


@pytest.mark.parametrize(
    ("name", "point", "said"),
    [
        (
            "delta-dvp",
            "X8",
            "delta-dvp: there is no point X8: 8 is no octal number — this product counts octal",
        ),
        ("delta-dpv", None, "there is no profile delta-dpv — did you mean delta-dvp; one of your own"),
        ("./nowhere.yaml", None, "there is no file nowhere.yaml — check the path"),
    ],
)
def test_what_is_not_there_is_refused_with_a_mend(
    name: str, point: str | None, said: str, capsys: Capture
) -> None:
    assert show_profile(name, point, as_json=False) is Exit.REFUSED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(said)


def test_a_profile_of_the_plants_own_is_checked_before_it_is_shown(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "id: own\nlabels: {zh: 自制, en: Own}\nvendor: us\nproducts: [box]\nsource: [a drawing]\n"
        "points: {a: {at: dx/1, labels: {zh: 点, en: Point}}}\n",
        encoding="utf-8",
    )
    assert show_profile(str(path), None, as_json=False) is Exit.REFUSED
    assert capsys.readouterr().err.startswith(f'{path}:6:18: `at`: "dx" is no table')
