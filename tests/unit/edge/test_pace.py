"""How far a long check is: told now and then, and at the end; nothing of it changes the items."""

from __future__ import annotations

from edge_agent.wire.pace import pace_line, paced


def test_progress_is_told_five_times_a_second_and_at_the_end() -> None:
    told: list[str] = []
    now_ms = 0

    def clock() -> int:
        return now_ms

    taken = 0
    for taken in paced(range(1, 10_001), 10_000, clock, told.append):
        now_ms = taken // 10  # ten thousand a second
    assert taken == 10_000
    assert len(told) == 5
    assert told[-1] == "[########################] 100%  10000 of 10000  10000/s  0:00 left"
    assert "of 10000  1" in told[0]


def test_a_line_says_share_rate_and_time_left() -> None:
    assert pace_line(250, 1000, 5000) == "[######------------------]  25%  250 of 1000  50/s  0:15 left"
    assert pace_line(0, 0, 0).startswith("[------------------------]   0%")
    assert "100%" in pace_line(20, 10, 1000)
