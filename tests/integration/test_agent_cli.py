"""The verbs as people type them: exit codes, data on stdout, everything else on stderr, never a traceback."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import key_path, load_or_create_key
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.findings import Draft
from edge_agent.domain.units import MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.wire.event import Observation
from simulators.endpoint import Site, SpoiltEndpoint, Transport
from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import Refusal, RegisterBank, Table
from simulators.served import Served
from tests.certificates import Authority
from tests.integration.edge_rig import CONFIG, ROOT
from tests.servers import Mosquitto

pytestmark = pytest.mark.integration

PAIR = WallPair(MonoNs(0), UtcNs(1_790_000_000_000_000_000), synced=True)


def agent(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG.format(mqtt="mqtt://127.0.0.1:1", modbus=1, delivery="gateway"))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of one run that stopped cleanly."""
    path = tmp_path / "gw.db"
    key = load_or_create_key(key_path(path))
    opened = EventStore(path, Run("site", "gw", "b", "1", "c"), size_max_mb=16, sign=key.sign)
    opened.begin_epoch(PAIR)
    opened.commit([Draft(MonoNs(0), Observation("fact", {"n": n})) for n in range(5)], {}, PAIR)
    opened.stop_clean(PAIR)
    opened.close()
    return path


def bundle_of(store: Path) -> list[str]:
    with closing(sqlite3.connect(store)) as database:
        return [row[0].decode() for row in database.execute("SELECT payload FROM event ORDER BY n")]


@pytest.mark.parametrize("verb", ["run", "check", "verify", "replay", "probe", "scan", "doctor", "profiles"])
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = agent(verb, "--help")
    assert done.returncode == 0
    assert "Example: guardwatch-agent" in done.stdout


def test_no_verb_and_a_wrong_one_are_bad_usage() -> None:
    assert agent().returncode == 2
    assert agent("fly").returncode == 2
    assert agent("check").returncode == 2


@pytest.mark.parametrize("verb", ["run", "check", "doctor"])
def test_a_bad_configuration_is_told_with_its_place(config: Path, verb: str) -> None:
    config.write_text(
        config.read_text().replace("kind: interlocked_door", "kind: cat_flap") + "colour: red\n"
    )
    done = agent(verb, config)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, "all of them at once"
    assert all(line.startswith(f"{config}:") and " — " in line for line in lines)


def test_check_says_what_a_good_one_means(config: Path) -> None:
    done = agent("check", config, "--plan", "--rules")
    assert done.returncode == 0
    assert "plant/gw-01: 1 devices, 1 machines, 1 guards" in done.stdout
    assert "guard_open_motion" in done.stdout
    assert json.loads(agent("check", config, "--json").stdout)["site"] == "plant"


def test_a_store_of_another_agent_is_refused(config: Path, store: Path) -> None:
    (config.parent / "var").mkdir()
    store.rename(config.parent / "var/gw-01.db")
    done = agent("run", config)
    assert done.returncode == 2
    assert "belongs to site/gw, not plant/gw-01 — drain it first, or name a new store" in done.stderr


def test_a_key_that_others_may_read_is_refused(config: Path) -> None:
    path = config.parent / "var/gw-01.db.key"
    load_or_create_key(path)
    path.chmod(0o644)
    done = agent("run", config)
    assert (done.returncode, "chmod 600" in done.stderr) == (2, True)


def test_verify_praises_a_whole_store_and_bundle(store: Path, tmp_path: Path) -> None:
    done = agent("verify", store)
    assert (done.returncode, done.stderr) == (0, "")
    assert "whole: 7 entries in 1 epochs, 1 checkpoints, 1 signatures good" in done.stdout
    bundle = tmp_path / "bundle.jsonl"
    bundle.write_text("\n".join(bundle_of(store)) + "\n")
    data = json.loads(agent("verify", bundle, "--key", key_path(store), "--json").stdout)
    assert (data["ok"], data["entries"], data["signatures"]) == (True, 7, 1)


Tampering = Callable[[list[str]], list[str]]
DEEDS: dict[str, tuple[Tampering, str]] = {
    "flipped": (lambda lines: [*lines[:2], lines[2].replace("fact", "fakt"), *lines[3:]], "line 3"),
    "removed": (lambda lines: [*lines[:2], *lines[3:]], "line 3"),
    "inserted": (lambda lines: [*lines[:3], lines[2], *lines[3:]], "line 4"),
    "reordered": (lambda lines: [*lines[:2], lines[4], lines[3], lines[2], *lines[5:]], "line 3"),
    "truncated": (lambda lines: [*lines[:4], lines[4][:99]], "line 5"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_verify_names_the_first_bad_entry_of_a_bundle(store: Path, tmp_path: Path, deed: str) -> None:
    tamper, where = DEEDS[deed]
    bundle = tmp_path / "bundle.jsonl"
    bundle.write_text("\n".join(tamper(bundle_of(store))))
    done = agent("verify", bundle)
    assert done.returncode == 1
    assert f"{bundle}: {where}: {deed}: " in done.stderr
    data = json.loads(agent("verify", bundle, "--json").stdout)
    assert (data["ok"], data["flaw"]["deed"]) == (False, deed)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "UPDATE event SET payload=CAST(replace(payload,'fact','fakt') AS BLOB) WHERE n=3",
            "place 3: flipped",
        ),
        ("DELETE FROM event WHERE n=3", "place 4: removed"),
        ("DELETE FROM event WHERE n>5", "the end: truncated"),
        ("DELETE FROM event", "the end: truncated"),
    ],
)
def test_verify_names_the_first_bad_entry_of_a_store(store: Path, statement: str, told: str) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.execute(statement)
    done = agent("verify", store)
    assert (done.returncode, told in done.stderr) == (1, True)


@pytest.mark.parametrize("content", ["CAST(payload AS TEXT)", "7", "NULL"])
def test_verify_names_an_entry_that_is_no_bytes_any_more(store: Path, content: str) -> None:
    """One bit of its type is enough for the first: an entry that is its own words, and yet is not what was written."""
    with closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.executescript(
            "PRAGMA writable_schema=1; UPDATE sqlite_master SET sql=replace(replace(sql, 'STRICT', ''),"
            " 'payload BLOB NOT NULL', 'payload') WHERE name='event'"
        )
    with closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.execute(f"UPDATE event SET payload={content} WHERE n=3")
    done = agent("verify", store)
    assert (done.returncode, "place 3: flipped" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("fact", ["first", "end"])
def test_verify_says_of_a_store_that_its_bounds_cannot_be_read(store: Path, fact: str) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.execute("INSERT OR REPLACE INTO fact VALUES (?, '[1')", (fact,))
    done = agent("verify", store)
    assert (done.returncode, "cannot be read: the file itself is damaged" in done.stderr) == (1, True)


def test_verify_of_spoilt_files_and_none(store: Path, tmp_path: Path) -> None:
    store.write_bytes(store.read_bytes()[: store.stat().st_size // 2])
    assert agent("verify", store).returncode == 1
    junk = tmp_path / "junk"
    junk.write_bytes(bytes(range(256)) * 9)
    assert agent("verify", junk).returncode == 1
    assert agent("verify", tmp_path / "nothing").returncode == 2
    for folder in (tmp_path, Path("/")):
        done = agent("verify", folder)
        assert (done.returncode, "Is a directory" in done.stderr) == (2, True)


def test_replay_gives_the_same_bytes_each_time(config: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    reads = [
        {"t": t, "device": "plc1", "table": "di", "start": 0, "bits": "110010" if t < 500 else "000010"}
        for t in range(0, 2000, 100)
    ]
    trace.write_text("".join(json.dumps(read) + "\n" for read in reads))
    once, again = (agent("replay", trace, "--config", config) for _ in range(2))
    assert (once.returncode, once.stderr) == (0, "")
    assert once.stdout == again.stdout
    kinds = [json.loads(line)["kind"] for line in once.stdout.splitlines()]
    assert kinds.count("violation_raised") == 1
    trace.write_text("{}\n")
    assert agent("replay", trace, "--config", config).returncode == 2


@asynccontextmanager
async def cabinet(*units: int) -> AsyncIterator[tuple[RegisterBank, str]]:
    """A device with these units, and its URL; nothing may ever have been written to it."""
    bank = RegisterBank(units)
    async with RegisterBankServer(bank) as server:
        yield bank, f"modbus+tcp://127.0.0.1:{server.address[1]}"
        assert server.writes_refused == 0


async def test_probe_prints_registers_as_bits_and_numbers_and_in_all_orders() -> None:
    async with cabinet(1) as (bank, url):
        bank.set_words(1, Table.HR, 0, [0x41C4, 0])
        shown = await asyncio.to_thread(agent, "probe", url, "--count", "2")
        assert "hr/0  16836  0x41C4  0100000111000100   16836" in shown.stdout
        orders = next(line for line in shown.stdout.splitlines() if "float32" in line)
        assert orders.split()[:3] == ["hr/0-1", "float32", "24.5"]
        told = json.loads((await asyncio.to_thread(agent, "probe", url, "--count", "2", "--json")).stdout)
    assert (told["unit"], told["table"], told["items"]) == (1, "hr", {"0": 0x41C4, "1": 0})
    assert told["values"]["float32"]["0"]["ABCD"] == "24.5"
    assert told["values"]["uint32"]["0"]["CDAB"] == 0x41C4


async def test_probe_and_scan_reach_a_device_that_wants_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.sign("fitter")
    files: list[str | Path] = [
        "--ca-file",
        authority.ca_file,
        "--cert-file",
        own.cert_file,
        "--key-file",
        own.key_file,
    ]
    bank = RegisterBank([1])
    bank.set_words(1, Table.HR, 0, [4711])
    endpoint = SpoiltEndpoint(bank, Site(Transport.TLS, tls=authority.server_context()))
    await endpoint.start()
    try:
        url = f"modbus+tls://{endpoint.place}"
        shown = await asyncio.to_thread(agent, "probe", url, "--count", "1", *files)
        assert "hr/0   4711" in shown.stdout
        found = await asyncio.to_thread(agent, "scan", url, "--units", "1", *files)
        assert "unit 1: hr answers" in found.stdout
        bare = await asyncio.to_thread(agent, "probe", url, "--count", "1", "--ca-file", authority.ca_file)
        assert (bare.returncode, "TLS refused" in bare.stderr) == (1, True), bare.stderr
        lost = await asyncio.to_thread(agent, "probe", url, "--ca-file", tmp_path / "nowhere.pem")
        assert (lost.returncode, "certificate file" in lost.stderr) == (2, True)
    finally:
        await endpoint.stop()


async def test_probe_says_in_words_why_there_is_nothing_to_show() -> None:
    async with cabinet(1) as (bank, url):
        bank.refuse(Refusal(1, 2))
        refused = await asyncio.to_thread(agent, "probe", url)
        assert (refused.returncode, "1-based?" in refused.stderr) == (1, True)
    gone = await asyncio.to_thread(agent, "probe", url)
    assert (gone.returncode, "cannot connect" in gone.stderr) == (1, True)


async def test_probe_finds_a_known_value_and_says_what_is_unusual_about_its_place() -> None:
    async with cabinet(1) as (bank, url):
        bank.set_words(1, Table.HR, 9, [0, 0x41C4])
        found = await asyncio.to_thread(agent, "probe", url, "--start", "10", "--expect", "24.5")
        assert "hr/9  float32, CDAB" in found.stdout
        assert "1-based?" in found.stdout
        assert "word_order: little" in found.stdout
        lost = await asyncio.to_thread(agent, "probe", url, "--start", "10", "--expect", "99.25")
        assert lost.returncode == 1


async def test_find_bit_names_the_bit_of_a_guard_that_is_opened_three_times() -> None:
    """The door moves by the polls that saw it, so that a slow machine sees the same door."""
    served: asyncio.Queue[Served] = asyncio.Queue()
    bank = RegisterBank([1])
    bank.set_bit(1, Table.DI, 7, value=True)
    async with RegisterBankServer(bank, log=served.put_nowait) as server:
        url = f"modbus+tcp://127.0.0.1:{server.address[1]}"
        find = asyncio.create_task(
            asyncio.to_thread(agent, "probe", url, "--table", "di", "--find-bit", "--json")
        )
        for is_closed in (True, False, True, False, True, False, True):
            bank.set_bit(1, Table.DI, 7, value=is_closed)
            for _ in range(12):
                await served.get()
        (bit,) = json.loads((await find).stdout)["bits"]
    assert (bit["at"], bit["invert"]) == ("di/7", False)


async def test_scan_lists_the_units_that_answer_with_their_tables() -> None:
    async with cabinet(1, 3) as (bank, url):
        bank.refuse(Refusal(3, 2, Table.CO))
        found = await asyncio.to_thread(agent, "scan", url, "--units", "1-4", "--json")
        units = json.loads(found.stdout)["units"]
        assert [unit["unit"] for unit in units] == [1, 3]
        assert units[1]["tables"] == {
            "hr": "answers",
            "co": "refuses (exception:2)",
            "di": "answers",
            "ir": "answers",
        }
        bank.refuse(Refusal(3, 11))
        silent = await asyncio.to_thread(agent, "scan", url, "--units", "3")
        assert silent.returncode == 1, "a gateway that says nobody answers is no unit"


async def test_scan_finds_a_unit_behind_many_that_are_silent() -> None:
    async with cabinet(9) as (bank, url):
        for unit in range(1, 9):
            bank.set_silent(unit, silent=True)
        found = await asyncio.to_thread(agent, "scan", url, "--units", "1-9", "--timeout-ms", "500", "--json")
    assert [unit["unit"] for unit in json.loads(found.stdout)["units"]] == [9]


@pytest.mark.parametrize("units", ["1" * 5000, "1-9999999999", "256", "5-", ""])
def test_units_that_no_link_has_are_bad_usage(units: str) -> None:
    done = agent("scan", "modbus+tcp://127.0.0.1:1", "--units", units)
    assert (done.returncode, " — write it like " in done.stderr) == (2, True)


async def test_doctor_says_what_is_well_and_what_is_not(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with RegisterBankServer(RegisterBank([1])) as server:
        config = tmp_path / "agent.yaml"
        config.write_text(CONFIG.format(mqtt=mosquitto.url, modbus=server.address[1], delivery="gateway"))
        well = await asyncio.to_thread(agent, "doctor", config, "--json")
        findings = {finding["what"]: finding["ok"] for finding in json.loads(well.stdout)["findings"]}
        assert findings[f"broker 127.0.0.1:{mosquitto.port}"]
        assert any(what.startswith("device plc1 di/0..5 in ") for what in findings)
        mosquitto.stop()
    ill = await asyncio.to_thread(agent, "doctor", config)
    assert ill.returncode == 1
    assert "BAD broker" in ill.stdout
    assert "BAD device plc1" in ill.stdout


@pytest.mark.parametrize(
    "url", ["ftp://x", "127.0.0.1", "modbus+rtu://ttyUSB0", "modbus+tcp://127.0.0.1:99999"]
)
def test_a_bad_url_is_bad_usage(url: str) -> None:
    done = agent("probe", url)
    assert (done.returncode, " — " in done.stderr) == (2, True)
