"""The finder of bits: a door is opened three times, in virtual time, among bits that do other things."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_agent.domain.bit_finder import BitFinder, Found
from edge_agent.domain.plan import Table
from edge_agent.domain.units import NS_PER_MS, MonoNs

POLL_MS = 20


@dataclass
class Cabinet:
    """Sixteen discrete inputs and four registers; `play` lets time pass, polling."""

    finder: BitFinder = field(default_factory=BitFinder)
    now_ms: int = 0
    inputs: int = 0
    registers: list[int] = field(default_factory=lambda: [0] * 4)
    heart_beats: bool = False

    def poll(self) -> None:
        if self.heart_beats:
            self.registers[0] = self.now_ms // 100 % 65536
        now = MonoNs(self.now_ms * NS_PER_MS)
        self.finder.feed(Table.DISCRETE_INPUT, 32, self.inputs.to_bytes(2, "little"), now)
        words = b"".join(word.to_bytes(2, "big") for word in self.registers)
        self.finder.feed(Table.HOLDING_REGISTER, 100, words, now)

    def play(self, ms: int) -> None:
        for _ in range(ms // POLL_MS):
            self.poll()
            self.now_ms += POLL_MS

    def put(self, *bits: int, on: bool) -> None:
        for bit in bits:
            self.inputs = self.inputs | 1 << bit if on else self.inputs & ~(1 << bit)

    def swing(self, *bits: int, times: int = 3, closed: bool = True, open_ms: int = 600) -> None:
        """Open and close a door whose bits rest at `closed`."""
        for _ in range(times):
            self.put(*bits, on=not closed)
            self.play(open_ms)
            self.put(*bits, on=closed)
            self.play(600)

    def found(self) -> Found | None:
        return self.finder.found(MonoNs(self.now_ms * NS_PER_MS))


def test_a_closed_contact_that_opens_three_times_is_named_with_its_polarity() -> None:
    cabinet = Cabinet(inputs=1 << 5)
    cabinet.play(200)
    cabinet.swing(5)
    cabinet.play(2100)
    found = cabinet.found()
    assert found is not None
    (follower,) = found.followers
    assert (str(follower.place), follower.is_one_when_closed, follower.bounce_ms) == ("di/37", True, 0)


def test_a_contact_that_rests_at_zero_is_inverted() -> None:
    cabinet = Cabinet()
    cabinet.play(200)
    cabinet.swing(0, closed=False)
    cabinet.play(2100)
    found = cabinet.found()
    assert found is not None
    assert [(str(item.place), item.is_one_when_closed) for item in found.followers] == [("di/32", False)]


def test_a_bit_of_a_register_is_named_with_its_bit() -> None:
    cabinet = Cabinet(registers=[0, 0, 1 << 9, 0])
    cabinet.play(200)
    for _ in range(3):
        cabinet.registers[2] = 0
        cabinet.play(600)
        cabinet.registers[2] = 1 << 9
        cabinet.play(600)
    cabinet.play(2100)
    found = cabinet.found()
    assert found is not None
    assert str(found.followers[0].place) == "hr/102.9"


def test_bounce_is_measured_and_is_no_further_opening() -> None:
    cabinet = Cabinet(inputs=1)
    cabinet.play(200)
    for _ in range(3):
        for on in (False, True, False, True, False):
            cabinet.put(0, on=on)
            cabinet.play(POLL_MS)
        cabinet.play(600)
        cabinet.put(0, on=True)
        cabinet.play(600)
    cabinet.play(2100)
    found = cabinet.found()
    assert found is not None
    assert found.followers[0].bounce_ms == 4 * POLL_MS


def test_both_channels_follow_and_the_one_that_moves_first_comes_first() -> None:
    cabinet = Cabinet(inputs=0b110)
    cabinet.play(200)
    for _ in range(3):
        cabinet.put(2, on=False)
        cabinet.play(40)
        cabinet.put(1, on=False)
        cabinet.play(600)
        cabinet.put(1, 2, on=True)
        cabinet.play(600)
    cabinet.play(2100)
    found = cabinet.found()
    assert found is not None
    assert [str(item.place) for item in found.followers] == ["di/34", "di/33"]


def test_a_heartbeat_is_no_guard_and_a_counter_of_openings_is_said() -> None:
    cabinet = Cabinet(inputs=1, heart_beats=True)
    cabinet.play(200)
    for _ in range(3):
        cabinet.registers[3] += 1
        cabinet.swing(0, times=1)
    cabinet.play(2100)
    found = cabinet.found()
    assert found is not None
    assert [str(item.place) for item in found.followers] == ["di/32"]
    assert found.counters == ("hr/103",)
    assert "hr/100.0" in map(str, found.restless)


def test_nothing_is_said_before_the_third_closing_has_settled() -> None:
    cabinet = Cabinet(inputs=1)
    cabinet.play(200)
    cabinet.swing(0, times=2)
    cabinet.play(2100)
    assert cabinet.found() is None
    assert cabinet.finder.openings == 2
    cabinet.swing(0, times=1)
    assert cabinet.found() is None, "the last movement is less than two seconds ago"
    cabinet.play(1600)
    assert cabinet.found() is not None


def test_a_bit_that_stays_open_is_not_the_guard() -> None:
    cabinet = Cabinet(inputs=0b11)
    cabinet.play(200)
    cabinet.put(1, on=False)
    cabinet.swing(0)
    cabinet.play(2100)
    found = cabinet.found()
    assert found is not None
    assert [str(item.place) for item in found.followers] == ["di/32"]
