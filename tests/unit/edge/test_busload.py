"""What a plan costs its links: frames and silences counted, full buses refused, slow answers found before they happen."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from edge_agent.configfile import Document, parse
from edge_agent.domain.plan import CellPlan
from edge_agent.settings.busload import TURNAROUND_MS, LinkLoad, link_loads, load_problems
from tests.unit.edge.rig import PLC, cell

SERIAL = "modbus+rtu:///dev/ttyUSB0?baud=9600&parity=E"
FILE = """\
devices:
  plc1:
    url: x
    timeout_ms: 500
    connect_pause_ms: 0
  drive:
    url: x
"""


def on(url: str, *, poll_ms: int = 200, baud: int = 9600, **device: int) -> CellPlan:
    """The cell with all its devices on one link."""
    plan = cell()
    blocks = tuple(replace(block, poll_ms=poll_ms) for block in plan.blocks)
    devices = {
        name: replace(found, url=url.replace("9600", str(baud)), **device)  # type: ignore[arg-type]
        for name, found in plan.devices.items()
    }
    return replace(plan, devices=devices, blocks=blocks)


def load_of(plan: CellPlan) -> LinkLoad:
    (load,) = link_loads(plan)
    return load


def told(plan: CellPlan) -> tuple[list[str], list[str]]:
    document = parse(FILE.encode(), "a.yaml", {})
    assert isinstance(document, Document)
    problems, warnings = load_problems(document, link_loads(plan))
    return [str(problem) for problem in problems], [str(warning) for warning in warnings]


def test_the_bytes_of_a_request_are_those_on_the_wire() -> None:
    tcp, rtu = load_of(on("modbus+tcp://h:502")), load_of(on("modbus+rtuovertcp://h:4001"))
    assert [(item.block.length_bytes, item.bytes_out, item.bytes_in) for item in tcp.requests] == [
        (1, 12, 10),
        (4, 12, 13),
        (6, 12, 15),
    ]
    assert [(item.bytes_out, item.bytes_in) for item in rtu.requests] == [(8, 6), (8, 9), (8, 11)]


def test_a_serial_line_is_busy_for_characters_silences_and_the_devices_own_time() -> None:
    load = load_of(on(SERIAL))
    char_ms = Fraction(11, 9600) * 1000
    assert load.requests[0].time_ms == (8 + 6 + 7) * char_ms + TURNAROUND_MS
    total_ms = (3 * 8 + 6 + 9 + 11 + 3 * 7) * char_ms + 3 * TURNAROUND_MS
    assert load.busy_pct == 100 * total_ms / 200
    assert (load.rps, load.baud) == (Fraction(15), 9600)


def test_above_19200_baud_silences_have_a_fixed_length() -> None:
    fast = load_of(on(SERIAL, baud=115200))
    assert fast.requests[0].time_ms == 14 * Fraction(11, 115200) * 1000 + Fraction(7, 2) + TURNAROUND_MS


@pytest.mark.parametrize(("query", "bits"), [("parity=E", 11), ("parity=N", 11), ("parity=N&stopbits=1", 10)])
def test_a_character_has_eleven_bits_unless_parity_and_second_stop_bit_are_given_up(
    query: str, bits: int
) -> None:
    url = f"modbus+rtu:///dev/ttyUSB0?baud=9600&{query}"
    assert load_of(on(url)).requests[0].time_ms == 21 * Fraction(bits, 9600) * 1000 + TURNAROUND_MS


def test_a_line_that_can_never_keep_up_is_refused_with_the_factor_that_mends_it() -> None:
    problems, warnings = told(on(SERIAL, baud=1200, timeout_ms=400, poll_ms=300))
    assert (len(problems), warnings) == (1, [])
    assert problems[0].startswith(
        "a.yaml:2:3: 10 requests/s keep the line of plc1 227 % busy at 1200 baud — "
    )
    assert "multiply every poll_ms of the link by 2.27" in problems[0]


def test_a_line_that_hardly_keeps_up_is_warned_about() -> None:
    assert told(on(SERIAL, baud=9600, poll_ms=120)) == (
        [],
        [
            (
                "a.yaml:2:3: the line of plc1 is 93 % busy: one repeated request makes others late — "
                "plan for at most 80 %: write a longer poll_ms, a higher baud rate, or move signals closer together"
            )
        ],
    )


def test_pauses_that_fill_the_time_of_a_link_are_refused() -> None:
    problems, _ = told(on("modbus+tcp://h:502", pause_ms=100))
    assert [problem.split(" — ")[0] for problem in problems] == [
        "a.yaml:2:3: the pauses of plc1's link alone take 150 % of its time"
    ]
    assert told(on("modbus+tcp://h:502", pause_ms=100, connections=2)) == ([], [])


def test_an_answer_that_takes_longer_than_its_timeout_is_found_before_it_does() -> None:
    plan = on(SERIAL, baud=1200, poll_ms=5000)
    long = tuple(replace(block, count=100) if block.device == PLC else block for block in plan.blocks)
    (problem,), _ = told(replace(plan, blocks=(plan.blocks[0], long[1], plan.blocks[2])))
    assert problem.startswith(
        "a.yaml:4:17: one request of plc1 takes 2027 ms at 1200 baud, not below timeout_ms of 500"
    )


def test_a_pause_after_connecting_must_leave_time_before_values_are_stale() -> None:
    problems, _ = told(on("modbus+tcp://h:502", connect_pause_ms=1500))
    assert problems[0].startswith(
        "a.yaml:5:23: after one lost connection plc1 is read again after up to 2000 ms, not below stale_ms of 2000"
    )


def test_links_of_different_url_are_told_apart() -> None:
    assert [(load.url, load.rps) for load in link_loads(cell())] == [
        ("modbus+tcp://plc1.example:502", Fraction(10)),
        ("modbus+tcp://drive.example:502", Fraction(5)),
    ]
