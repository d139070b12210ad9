"""A beat is as old as what it took beyond the quickest way."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.presence import OFFLINE_MS, PROMPT_MS
from gateway.domain.transit import WINDOW_MS, Transit, note_transit


def lates(beats: Iterable[tuple[int, int]], boot: str = "b") -> list[int]:
    """How late each of (made on the agent's clock, received on the gateway's) came, by all before it."""
    known: Transit | None = None
    found = []
    for mono_ms, now_ms in beats:
        known = note_transit(known, boot, mono_ms, now_ms)
        found.append(known.late_ms)
    return found


def test_what_was_held_up_is_late_by_as_long_as_it_was_held_up() -> None:
    assert lates([(0, 1000), (2000, 3004), (4000, 12_000), (6000, 12_000), (12_500, 13_502)]) == [
        0,
        4,
        7000,
        5000,
        2,
    ]


def test_a_quicker_way_is_the_measure_for_what_comes_after_it() -> None:
    assert lates([(0, 9000), (2000, 6000), (4000, 9000)]) == [0, 0, 1000]


def test_silence_forgets_no_measure_however_long_it_is() -> None:
    """Whatever had been held up for an hour comes at once: the first of it may not be the measure of the rest."""
    before = [(2000 * n, 2000 * n + 1000) for n in range(60)]
    after = [(2000 * n, 4_000_000) for n in range(60, 70)]
    assert lates(before + after)[-10:] == [4_000_000 - 1000 - 2000 * n for n in range(60, 70)]


def test_one_burst_after_another_forgets_no_measure() -> None:
    """The journal fails twice; between the two nothing came in time."""
    prompt = [(2000 * n, 2000 * n) for n in range(30)]
    first = [(2000 * n, 185_000) for n in range(30, 65)]
    second = [(2000 * n, 250_000) for n in range(93, 101)]
    assert lates(prompt + first + second)[-1] == 50_000


def test_a_clock_that_is_slewed_as_fast_as_any_server_slews_ends_no_presence() -> None:
    """chrony slews by a twelfth: beats of every two seconds then come 2.2 s apart."""
    beats = [(2000 * n, 2167 * n) for n in range(300)]
    assert max(lates(beats)) + 2167 < OFFLINE_MS
    assert max(lates(beats)) <= PROMPT_MS


def test_a_paused_machine_comes_back_with_a_clock_that_lags_and_is_believed_again_after_two_windows() -> None:
    before = [(2000 * n, 2000 * n) for n in range(60)]
    after = [(2000 * n, 2000 * n + 30_000) for n in range(60, 130)]
    late = lates(before + after)[60:]
    assert late[0] == 30_000
    assert late[2 * WINDOW_MS // 2000] == 0


def test_another_boot_begins_anew() -> None:
    known = note_transit(note_transit(None, "b", 50_000, 1000), "c", 10, 2000)
    assert known.late_ms == 0
    assert note_transit(known, "c", 2010, 5000).late_ms == 1000


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3000)), min_size=1, max_size=200),
    st.integers(-(10**9), 10**9),
)
def test_no_beat_is_later_than_its_way_was_long_nor_early(ways: list[tuple[int, int]], apart_ms: int) -> None:
    """Whatever the clocks are apart by: it is measured, never guessed."""
    made_ms, beats = 0, []
    for pause_ms, way_ms in ways:
        made_ms += pause_ms
        beats.append((made_ms + apart_ms, made_ms + way_ms))
    for late_ms, (_, way_ms) in zip(lates(beats), ways, strict=True):
        assert 0 <= late_ms <= way_ms
