"""The schedule of one connection: which block of which device is asked next, when, and for how long it may take.

Pure: it takes the time and the outcomes, and keeps counters. One request is in flight; nothing is ever queued, so an
overload costs polls, never memory.

**Grid.** The unit of polling is the poll group: the blocks of one device that share a `poll_ms`. A group is due at
`phase + n × poll_ms` for ever; lateness never moves the grid. A poll that goes on past its next tick is an *overrun*:
the ticks it missed are skipped and it waits for the next one. Phases are spread over the interval by the golden
ratio, which leaves any number of groups about evenly apart, so that a thousand devices do not fire at once; the first
poll of each goes out within its interval, and within `turn.SPREAD_MAX_MS`.

**Turns.** The turn goes to the device that has been due longest, one request at a time: a slow device delays its
neighbours by one request, and under overload all are served equally often, since whoever was served waits for a tick
that lies behind everyone who waits now. Within a device, of the groups that are due the fastest goes first. `max_rps`
holds back a device, `pause_ms` keeps the connection still before a request to a device.

**Silent devices.** A device that does not answer (or whose gateway says that it does not: exceptions 10 and 11) is not
asked for its other blocks, and is asked once more at its own pace. From then on it is *probed* with its smallest block alone; the first answer, if only a
refusal, brings it back with a full poll at once. What a probe costs its neighbours depends on the framing.

    MBAP (TCP, TLS)  a late answer is told apart by its transaction id, so a probe need not wait for long: four times
                     the slowest answer of late, at least PROBE_FLOOR_MS. Guaranteed: every silent device is probed
                     within PROBE_MAX_S, however many there are. Neighbours keep 95 % of their polls as long as a probe
                     fits between two of them (polls at 100 ms, answers within 12 ms) and their own requests leave
                     room for all probes (30 dead units: 30 × 50 ms in 5 s, a third of the time). Now and then a probe
                     gets the whole `timeout_ms`, for a unit that has become slow: one device after the other, within
                     one part in FULL_PROBE_SHARE of the time.
    RTU              after a failure the link keeps quiet for as long as the longest timeout, as part of the read that
                     failed; so there is no cheap probe. All silent devices together get one part in
                     RTU_PROBE_SHARE of the line's time: neighbours keep four fifths. PROBE_MAX_S holds while the
                     timeouts of the silent devices, with the quiet after each, sum up to a second.

Devices that fell silent one after the other, with no answer of anybody in between, were cut off together: with the first
answer all of them are tried. Where no neighbour answers either, nobody suffers: each is probed at its own pace (at least every PROBE_MAX_S), and a
link that comes back is polled fully with the first answer of each device.

Sources: Modbus Messaging on TCP/IP 1.0b, 4.2 (transaction identifier); Modbus over Serial Line 1.02, 2.4 (turnaround);
Modbus Application Protocol 1.1b3, 7 (exceptions 0A and 0B).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import count
from typing import Final

from edge_agent.domain.plan import CellPlan, DevicePlan, ReadBlock
from edge_agent.domain.units import NS_PER_MS, NS_PER_S, BlockId, DeviceId, MonoNs
from edge_agent.ports import BlockFailed, BlockOutcome
from edge_agent.runtime.turn import Turn, poll_groups

PROBE_MAX_S: Final = 5
"""A silent device is probed again within this: one that is back is seen at once by a person's measure."""

PROBE_FLOOR_MS: Final = 50
"""No probe waits for less: a controller answers within one or two of its scans, of 10 to 20 ms."""

PROBE_SHARE: Final = 40
"""On MBAP framing the silent devices of a connection use one part in this of its time, while PROBE_MAX_S allows."""

FULL_PROBE_SHARE: Final = 80
"""Probes with the whole timeout use one part in this of a connection's time."""

RETRY_SHARE: Final = 5
"""A device that has just failed is asked again at its own pace: noise loses an answer now and then, and values must not go
stale for it. Such retries use one part in this of a connection's time, so that one that fails all the time has no more."""

RTU_PROBE_SHARE: Final = 5
"""On RTU framing the silent devices of a line use one part in this of its time."""

READ_TIMES: Final = 2, 0
"""A read takes at most so many timeouts, and so many ms more: it waits for a connection, then for the answer …"""

RTU_READ_TIMES: Final = 7, 2000
"""… and on RTU framing for two connections, two silences (each a timeout, and at most a second of noise) and three answers."""

_PROBE_DUE_NS: Final = (PROBE_MAX_S - 1) * NS_PER_S
"""Probes are due a second before they must be out, for those whose turn comes first."""

_SLOWEST_TIMES: Final = 4
"""A probe waits this many times the slowest answer of late: twice as slow is common at load, four times is not."""

_SILENT_REASONS: Final = frozenset({"timeout", "link", "bad_frame", "exception:10", "exception:11"})
"""Failures that the device's other blocks would meet too …"""

_RTU_SILENT_REASONS: Final = _SILENT_REASONS | {"short", "wrong_unit", "wrong_function"}
"""… and on RTU framing those that cost the line a silence, as a timeout does."""

_ANSWER: Final = "exception:"
"""How the reasons begin that came as an answer."""

_NONE: Final[tuple[BlockId, ...]] = ()


@dataclass(frozen=True, slots=True)
class PollCounters:
    """One device since the start: polls ended (also by silence), reads without a sample, polls that missed their next tick."""

    polls: int
    errors: int
    overruns: int


class PollSchedule:
    """Whose turn it is on one connection. `order` is how many groups of the agent were counted before this one's."""

    def __init__(
        self, devices: Sequence[DevicePlan], blocks: Sequence[ReadBlock], now: MonoNs, order: int = 0
    ) -> None:
        orders = count(order)
        self._turns = [
            Turn(plan, poll_groups([blocks[index] for index in plan.blocks], now, orders), now)
            for plan in devices
            if plan.blocks
        ]
        self._heap = [(turn.due, place, turn) for place, turn in enumerate(self._turns)]
        heapify(self._heap)
        self.group_count = sum(len(turn.groups) for turn in self._turns)
        self._is_rtu = any(plan.is_rtu_framed for plan in devices)
        self._silent_reasons = _RTU_SILENT_REASONS if self._is_rtu else _SILENT_REASONS
        times, more_ms = RTU_READ_TIMES if self._is_rtu else READ_TIMES
        self.read_max_ms = times * max((turn.device.timeout_ms for turn in self._turns), default=0) + more_ms
        self._silent = 0
        self._full_probe_at = now
        self._retry_at = now
        self._fallen: list[Turn] = []
        self._free_at = now

    def next_turn(self, now: MonoNs) -> Turn:
        """The turn that has been due longest, or is due first."""
        due, _, turn = self._heap[0]
        turn.due = due
        pause_ms = turn.device.pause_ms
        if pause_ms:
            turn.due = MonoNs(max(due, self._free_at + pause_ms * NS_PER_MS))
        turn.choose(now)
        turn.timeout_ms = turn.device.timeout_ms
        if turn.is_silent or not turn.slowest_ns:
            self._shorten(turn, now)
        return turn

    def finish(self, turn: Turn, outcome: BlockOutcome, started: MonoNs, now: MonoNs) -> Sequence[BlockId]:
        """A turn is over; blocks of the same device that are not asked for because of how it went."""
        _, place, first = self._heap[0]
        assert turn is first, "turns end in the order in which they are given"
        self._free_at = now
        turn.request_due = MonoNs(started + turn.spacing_ns)
        skipped: Sequence[BlockId] = _NONE
        if not isinstance(outcome, BlockFailed):
            turn.note_answer(now - started)
            if turn.is_at_piece:
                turn.vouch()
                turn.arm(now)
            else:
                turn.end_doubt()
                self._hear(turn, now)
        else:
            turn.end_doubt()
            turn.errors += 1
            if outcome.reason.startswith(_ANSWER):
                turn.note_answer(now - started)
            if outcome.reason in self._silent_reasons:
                skipped = self._miss(turn, started, now)
            else:
                self._hear(turn, now)
        heapreplace(self._heap, (turn.due, place, turn))
        if self._fallen and not turn.is_silent:
            self._try_fallen(now)
        return skipped

    def divide(self, turn: Turn, parts: Sequence[ReadBlock], started: MonoNs, now: MonoNs) -> None:
        """A turn is over with a refusal of its block, and `parts` are asked for instead, in the same poll."""
        turn.divide(parts)
        self._go_on(turn, started, now)

    def doubt(self, turn: Turn, pieces: Sequence[ReadBlock], started: MonoNs, now: MonoNs) -> None:
        """A turn is over with a refusal of its block, and one of its `pieces` is asked for, in the same poll."""
        turn.doubt(pieces)
        self._go_on(turn, started, now)

    def counters(self) -> dict[DeviceId, PollCounters]:
        """What became of each device's polls."""
        return {turn.device.id: PollCounters(turn.polls, turn.errors, turn.overruns) for turn in self._turns}

    def _go_on(self, turn: Turn, started: MonoNs, now: MonoNs) -> None:
        """The poll goes on after a refusal, behind everyone who waits."""
        _, place, first = self._heap[0]
        assert turn is first, "turns end in the order in which they are given"
        self._free_at = now
        turn.request_due = MonoNs(started + turn.spacing_ns)
        turn.errors += 1
        turn.note_answer(now - started)
        turn.arm(now)
        heapreplace(self._heap, (turn.due, place, turn))

    def _hear(self, turn: Turn, now: MonoNs) -> None:
        """It answered: on with the poll, or, after a silence, a full poll at once."""
        if turn.is_silent:
            turn.is_silent = False
            self._silent -= 1
            for group in turn.groups:
                group.restart(now)
        else:
            group = turn.group
            group.next_block += 1
            if group.next_block >= len(group.blocks):
                turn.polls += 1
                if group.end_poll(now):
                    turn.overruns += 1
        turn.arm(now)

    def _miss(self, turn: Turn, started: MonoNs, now: MonoNs) -> list[BlockId]:
        """It is silent (still): when to probe it, and which of its blocks fail with this one."""
        turn.polls += 1
        skipped = turn.unasked(now)
        is_retry = False
        if not turn.is_silent:
            turn.is_silent = True
            self._silent += 1
            self._fallen.append(turn)
            is_retry = now >= self._retry_at
            if is_retry:
                self._retry_at = MonoNs(now + (now - started) * RETRY_SHARE)
        elif turn.timeout_ms == turn.device.timeout_ms:
            turn.full_probe_at = now
            self._full_probe_at = MonoNs(now + (now - started) * FULL_PROBE_SHARE)
        pace_ns = min(turn.groups[0].poll_ns, _PROBE_DUE_NS)
        if self._silent < len(self._turns) and not is_retry:
            share = RTU_PROBE_SHARE if self._is_rtu else PROBE_SHARE
            pace_ns = max(pace_ns, (now - started) * share * self._silent)
            if not self._is_rtu:
                pace_ns = min(pace_ns, _PROBE_DUE_NS)
        turn.due = max(MonoNs(started + pace_ns), turn.request_due, now)
        return skipped

    def _try_fallen(self, now: MonoNs) -> None:
        """Somebody answers again: whoever fell silent together since the last answer was cut off together, and is tried now."""
        fallen, self._fallen = self._fallen, []
        if len(fallen) > 1:
            self._heap = [
                (max(now, turn.request_due) if turn in fallen and turn.is_silent else due, place, turn)
                for due, place, turn in self._heap
            ]
            heapify(self._heap)

    def _shorten(self, turn: Turn, now: MonoNs) -> None:
        """How long to wait for a device that is silent or has never answered, while neighbours wait for their turn."""
        known_ns = turn.slowest_ns or max(other.slowest_ns for other in self._turns)
        if self._is_rtu or not known_ns or self._silent == len(self._turns):
            return
        full_ms = turn.device.timeout_ms
        if now >= self._full_probe_at and turn.is_silent and self._waited_longest(turn):
            return
        turn.timeout_ms = min(full_ms, max(PROBE_FLOOR_MS, known_ns * _SLOWEST_TIMES // NS_PER_MS))

    def _waited_longest(self, turn: Turn) -> bool:
        return all(turn.full_probe_at <= other.full_probe_at for other in self._turns if other.is_silent)


def lines(plan: CellPlan) -> dict[str, tuple[DevicePlan, ...]]:
    """The connections that the plan needs, by name, and the devices that each serves.

    A URL has one connection, or as many as its devices allow (`connections`); its units are dealt out to them in turn.
    """
    named: dict[str, tuple[DevicePlan, ...]] = {}
    for url in dict.fromkeys(device.url for device in plan.devices.values()):
        devices = [device for device in plan.devices.values() if device.url == url and device.blocks]
        units = list(dict.fromkeys(device.unit for device in devices))
        wanted = max((device.connections for device in devices), default=1)
        for line in range(min(wanted, len(units))):
            dealt = set(units[line::wanted])
            name = url if line == 0 else f"{url} ({line + 1})"
            named[name] = tuple(device for device in devices if device.unit in dealt)
    return named


def line_schedules(plan: CellPlan, now: MonoNs) -> dict[str, PollSchedule]:
    """One schedule for each connection of the plan, their phases spread over all of them."""
    schedules: dict[str, PollSchedule] = {}
    order = 0
    for name, devices in lines(plan).items():
        schedules[name] = PollSchedule(devices, plan.blocks, now, order)
        order += schedules[name].group_count
    return schedules
