"""Traces: any line gives entries or a problem; a replay is the same bytes each time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.domain.trace import T_MAX_MS, TraceFailure, TraceProblem, TraceSample, read_trace
from edge_agent.replay import PROBLEMS_MAX, TraceError, replay, trace_problems
from tests.unit.edge.rig import Plant, Rig, bits, cell, ns, words

ROOT = Path(__file__).resolve().parents[3]


def line(t: float, device: str, table: str, start: int, **content: object) -> str:
    return json.dumps({"t": t, "device": device, "table": table, "start": start, **content})


def plc_bits(t: float, text: str) -> str:
    return line(t, "plc1", "di", 0, bits=text)


def plc_words(t: float) -> str:
    return line(t, "plc1", "hr", 0, words=[0, 0])


def test_a_whole_block_becomes_one_sample() -> None:
    entries = list(read_trace(cell(), [plc_bits(10, "110010")], "a.jsonl"))
    assert entries == [TraceSample(ns(10), cell().blocks[0].id, bits(1, 1, 0, 0, 1, 0))]


def test_a_longer_read_covers_its_block_and_the_rest_is_ignored() -> None:
    entries = list(read_trace(cell(), [plc_bits(10, "110010" + "1" * 20)], "a.jsonl"))
    assert entries == [TraceSample(ns(10), cell().blocks[0].id, bits(1, 1, 0, 0, 1, 0))]


def test_a_part_is_laid_over_the_last_content() -> None:
    lines = [plc_bits(10, "110010"), line(20, "plc1", "di", 3, bits="1")]
    assert list(read_trace(cell(), lines, "a"))[1] == TraceSample(
        ns(20), cell().blocks[0].id, bits(1, 1, 0, 1, 1, 0)
    )


def test_a_block_is_sampled_once_all_of_it_has_been_seen() -> None:
    lines = [line(10, "drive", "ir", 0, words=[1]), line(20, "drive", "ir", 1, words=[0, 65535])]
    assert list(read_trace(cell(), lines, "a")) == [TraceSample(ns(20), cell().blocks[2].id, words(1, 0, -1))]


def test_a_failed_read_fails_every_block_it_touches() -> None:
    lines = [line(10, "plc1", "di", 0, count=6, error="exception:2")]
    assert list(read_trace(cell(), lines, "a")) == [TraceFailure(ns(10), cell().blocks[0].id, "exception:2")]
    lines = [line(10, "plc1", "di", 0, count=6, error="unconfirmed")]
    assert list(read_trace(cell(), lines, "a")) == [TraceFailure(ns(10), cell().blocks[0].id, "unconfirmed")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        (line(1, "plc9", "di", 0, bits="1"), "device 'plc9' is not configured"),
        (line(1, "plc1", "xx", 0, bits="1"), "table 'xx' is unknown"),
        (line(-1, "plc1", "di", 0, bits="1"), "t is -1"),
        (line(1, "plc1", "di", -1, bits="1"), "start is -1"),
        (line(1, "plc1", "di", 0, bits="12"), "bits is missing or no text"),
        (line(1, "plc1", "di", 0, words=[1]), "bits is missing or no text"),
        (line(1, "plc1", "hr", 0, words=[]), "words is missing or empty"),
        (line(1, "plc1", "hr", 0, words=[70000]), "words holds 70000"),
        (line(1, "plc1", "hr", 0, count=2, error="broken"), "error 'broken' is unknown"),
        (line(1, "plc1", "hr", 0, error="timeout"), "count is None"),
        ("{" + " " * 70_000 + "}", "longer than 65536 characters"),
    ],
)
def test_a_bad_line_is_a_problem_with_its_place_and_its_mend(text: str, what: str) -> None:
    [problem] = trace_problems(cell(), ["", text], "day.jsonl")
    assert problem.startswith(f"day.jsonl:2: {what}")
    assert " — " in problem


def test_all_problems_are_told_at_once_up_to_a_limit() -> None:
    lines = [plc_bits(10, "110010"), plc_bits(5, "110010"), "nonsense"]
    assert [text.split(": ")[0] for text in trace_problems(cell(), lines, "a")] == ["a:2", "a:3"]
    assert len(trace_problems(cell(), ["?"] * 1000, "a")) == PROBLEMS_MAX


def test_the_latest_time_of_a_trace_has_a_label_and_a_later_one_is_a_problem() -> None:
    lines = [plc_bits(t, "010010") for t in (T_MAX_MS - 100, T_MAX_MS)]
    assert any('"guard_changed"' in text for text in replay(cell(), [*lines, plc_words(T_MAX_MS)]))
    [problem] = trace_problems(cell(), [plc_bits(T_MAX_MS + 1, "110010")], "a")
    assert f"t is {T_MAX_MS + 1}" in problem


def test_a_replay_stops_at_a_bad_line() -> None:
    with pytest.raises(TraceError, match="trace:1: not JSON"):
        list(replay(cell(), ["nonsense"]))


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    for entry in read_trace(cell(), [text], "a"):
        assert isinstance(entry, TraceProblem | TraceSample | TraceFailure)


@given(
    st.dictionaries(
        st.sampled_from(["t", "device", "table", "start", "bits", "words", "count", "error"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.floats(),
            st.text(max_size=5),
            st.lists(st.integers(), max_size=3),
            st.sampled_from(["plc1", "drive", "di", "ir", "hr", "1101", "timeout"]),
        ),
    )
)
def test_no_object_makes_the_reader_raise(document: dict[str, object]) -> None:
    for entry in read_trace(cell(), [json.dumps(document)], "a"):
        assert isinstance(entry, TraceProblem | TraceSample | TraceFailure)


def scenario() -> list[str]:
    """A door opened while running, then a drive that goes silent, then everything well again."""
    lines = []
    for step in range(120):
        t = step * 200
        is_open = 20 <= step < 40
        door = "000010" if is_open else "110010"
        lines.append(plc_bits(t, door))
        lines.append(line(t, "plc1", "hr", 0, words=[0, step]))
        if 60 <= step < 100:
            lines.append(line(t, "drive", "ir", 0, count=3, error="timeout"))
        else:
            lines.append(line(t, "drive", "ir", 0, words=[1, 0, 90]))
    return lines


def test_a_replay_finds_what_the_engine_finds_live() -> None:
    rig = Rig(cell())
    rig.plant = Plant(running=1, zero_speed=0, speed=90)
    for step in range(120):
        rig.now_ms = step * 200
        rig.set(closed=0 if 20 <= step < 40 else 1, heartbeat=step)
        rig.poll(fail=["drive"] if 60 <= step < 100 else [])
    live = [type(draft.body).__name__ for draft in rig.drafts]
    found = [json.loads(text)["kind"].replace("_", "") for text in replay(cell(), scenario())]
    assert [name.lower() for name in live] == found


def test_a_replay_is_byte_identical_in_two_processes_with_different_hash_seeds(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text("\n".join(scenario()))
    program = (
        "import sys; from pathlib import Path; from edge_agent.replay import replay; "
        "from tests.unit.edge.rig import cell; "
        "print('\\n'.join(replay(cell(), Path(sys.argv[1]).read_text().splitlines())))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "trace.jsonl")],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert b'"kind":"violation_raised"' in outputs[0]
    assert b'"seq"' not in outputs[0]
