"""Where servers are looked for, and in which order: environment, PATH, cache."""

import os
from pathlib import Path

import pytest

from simulators import servers
from simulators.servers import (
    cache_folder,
    find_chromium,
    find_influxd,
    find_mbpoll,
    find_mosquitto,
    find_postgres,
    is_influxd_2,
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty PATH, cache and Debian; programs are put into `bin`, `cache` and `debian`."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("INFLUXD", raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(servers, "_SYSTEM_FOLDERS", (tmp_path / "sbin",))
    monkeypatch.setattr(servers, "_DEBIAN_POSTGRES", tmp_path / "debian")
    return tmp_path


def program(path: Path, says: str = "") -> Path:
    """Put an executable there that prints one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def cached(machine: Path, name: str) -> Path:
    return machine / "cache" / "guardwatch" / name


def test_on_an_empty_machine_nothing_is_found(machine: Path) -> None:
    assert [find() for find in (find_mosquitto, find_influxd, find_postgres, find_chromium, find_mbpoll)] == [
        None
    ] * 5


def test_the_cache_is_where_xdg_says(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == machine / "cache" / "guardwatch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/li-qiang")
    assert cache_folder() == Path("/home/li-qiang/.cache/guardwatch")


def test_an_empty_xdg_cache_home_counts_as_unset(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/li-qiang")
    assert cache_folder() == Path("/home/li-qiang/.cache/guardwatch")


def test_path_goes_before_the_cache(machine: Path) -> None:
    program(cached(machine, "mosquitto-2.0.11") / "usr/sbin/mosquitto")
    on_path = program(machine / "bin" / "mosquitto")
    found = find_mosquitto()
    assert found is not None
    assert (found.path, dict(found.env)) == (on_path, {})


def test_a_daemon_outside_an_ordinary_users_path_is_found(machine: Path) -> None:
    installed = program(machine / "sbin" / "mosquitto")
    found = find_mosquitto()
    assert found is not None
    assert found.path == installed


def test_the_highest_cached_version_wins_by_number_not_by_letter(machine: Path) -> None:
    program(cached(machine, "mosquitto-2.0.9-1") / "usr/sbin/mosquitto")
    newest = program(cached(machine, "mosquitto-2.0.18-1") / "usr/sbin/mosquitto")
    found = find_mosquitto()
    assert found is not None
    assert found.path == newest


def test_a_file_that_cannot_be_executed_is_passed_over(machine: Path) -> None:
    program(cached(machine, "mosquitto-2.0.18-1") / "usr/sbin/mosquitto").chmod(0o644)
    assert find_mosquitto() is None


def test_an_unpacked_package_brings_its_libraries_before_those_of_the_caller(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    folder = cached(machine, "mosquitto-2.0.11")
    program(folder / "usr/sbin/mosquitto")
    (folder / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    found = find_mosquitto()
    assert found is not None
    assert found.environment()["LD_LIBRARY_PATH"] == f"{folder}/usr/lib/x86_64-linux-gnu:/opt/lib"
    assert found.environment()["PATH"] == os.environ["PATH"]


def test_influxd_of_the_environment_goes_first(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(machine / "bin" / "influxd", "InfluxDB v2.7.1")
    named = program(machine / "mine" / "influxd", "InfluxDB v2.7.12 (git: none)")
    monkeypatch.setenv("INFLUXD", str(named))
    found = find_influxd()
    assert found is not None
    assert found.path == named


def test_a_named_influxd_that_is_missing_is_not_silently_replaced(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(machine / "bin" / "influxd", "InfluxDB v2.7.1")
    monkeypatch.setenv("INFLUXD", str(machine / "nowhere"))
    assert find_influxd() is None


def test_debians_influxd_of_version_1_does_not_hide_a_cached_version_2(machine: Path) -> None:
    program(machine / "bin" / "influxd", "InfluxDB v1.6.7 (git: unknown unknown)")
    version_2 = program(cached(machine, "influxdb-2.7.12") / "influxd", "InfluxDB v2.7.12 (git: none)")
    found = find_influxd()
    assert found is not None
    assert found.path == version_2


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("InfluxDB v2.7.12 (git: ec9dcde5d6) build_date: 2025-05-20", True),
        ("InfluxDB 2.7.12", True),
        ("InfluxDB dev (git: none) build_date: 2026-11-22", True),  # version 2 built without a stamp
        ("InfluxDB v1.8.10 (git: 1.8 688e697c51fd)", False),
        ("InfluxDB vunknown (git: unknown unknown)", False),  # version 1 built without a stamp
        ("influxdb3 InfluxDB 3 Core, version 3.0.1", False),
        ("", False),
    ],
)
def test_only_version_2_is_influxd_2(machine: Path, says: str, *, expected: bool) -> None:
    assert is_influxd_2(program(machine / "influxd", says)) is expected


def test_postgres_needs_initdb_beside_it(machine: Path) -> None:
    program(machine / "bin" / "postgres")
    assert find_postgres() is None
    program(machine / "bin" / "initdb")
    found = find_postgres()
    assert found is not None
    assert found.path == machine / "bin" / "postgres"


def test_the_newest_postgres_of_debian_is_taken(machine: Path) -> None:
    for version in ("9", "15"):
        program(machine / "debian" / version / "bin" / "initdb")
        program(machine / "debian" / version / "bin" / "postgres")
    found = find_postgres()
    assert found is not None
    assert found.path == machine / "debian" / "15" / "bin" / "postgres"


def test_an_unpacked_postgres_is_found_whatever_its_version_folder(machine: Path) -> None:
    unpacked = program(cached(machine, "postgresql-15+248") / "usr/lib/postgresql/15/bin/postgres")
    found = find_postgres()
    assert found is not None
    assert found.path == unpacked


def test_chromium_uses_an_unpacked_chinese_font(machine: Path) -> None:
    chromium = program(machine / "bin" / "chromium")
    fonts = cached(machine, "fonts-0.2.0") / "fonts.conf"
    fonts.parent.mkdir(parents=True)
    fonts.touch()
    found = find_chromium()
    assert found is not None
    assert (found.path, dict(found.env)) == (chromium, {"FONTCONFIG_FILE": str(fonts)})
