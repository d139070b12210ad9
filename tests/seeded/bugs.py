"""The ten bugs, each a change of one or two lines to the real code, and the tests that must see it.

Source: the reliability plan's list of what a harness of this kind must catch; each has cost a product of the field data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` stands exactly once in the file at `path`, and becomes `new`."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug: every test of `caught_by` (pytest node ids) must fail when all `edits` are made."""

    name: str
    what: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]


BUGS: Final = (
    Bug(
        "B1-agent",
        "synchronous=NORMAL in the agent's store: a power cut loses what was committed",
        (
            Edit("edge_agent/adapters/store_file.py", "PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL"),
            Edit(
                "edge_agent/adapters/store_file.py",
                "_SYNCHRONOUS_FULL: Final = 2",
                "_SYNCHRONOUS_FULL: Final = 1",
            ),
        ),
        ("tests/contract/test_store.py::test_is_durable_by_its_own_word",),
    ),
    Bug(
        "B1-gateway",
        "synchronous=NORMAL in the gateway's journal",
        (Edit("gateway/adapters/store_sql/engine.py", '"synchronous": "2"', '"synchronous": "1"'),),
        (
            "tests/contract/test_journal_store.py::test_sqlite_really_runs_with_a_write_ahead_log_and_full_sync",
        ),
    ),
    Bug(
        "B2",
        "the gateway acknowledges before its commit",
        (
            Edit(
                "gateway/services/ingest.py",
                "            result = await self._persist(\n",
                "            self._intake.done(messages)\n            result = await self._persist(\n",
            ),
        ),
        (
            (
                "tests/unit/gateway/test_ingest.py::"
                "test_nothing_is_promised_while_the_journal_is_away_and_all_of_it_afterwards"
            ),
        ),
    ),
    Bug(
        "B3",
        "the agent takes the broker's PUBACK for the gateway's acknowledgement",
        (
            Edit(
                "edge_agent/domain/delivery.py",
                "if self._mode is DeliveryMode.GATEWAY or place is None or not is_delivered:",
                "if place is None or not is_delivered:",
            ),
        ),
        ("tests/unit/edge/test_delivery.py::test_a_puback_moves_nothing_when_a_gateway_acks",),
    ),
    Bug(
        "B4",
        "a value outlives its time when reads fail",
        (
            Edit(
                "edge_agent/engine.py",
                "        else:\n            self._enter(state, Supply.LOST)\n",
                "        elif state.failure is None:\n            self._enter(state, Supply.LOST)\n",
            ),
        ),
        (
            "tests/unit/edge/test_signal.py::test_a_loss_after_failures_is_called_comm_bad",
            (
                "tests/unit/edge/test_rule_monitoring.py::"
                "test_a_dead_device_is_lost_at_stale_ms_and_raised_ten_seconds_later"
            ),
        ),
    ),
    Bug(
        "B5-agent",
        "a violation lasts as long as the wall clock says",
        (
            Edit(
                "edge_agent/domain/occurrence.py",
                "        if self.since_mono is not None:\n            return now - self.since_mono\n",
                "",
            ),
        ),
        (
            (
                "tests/unit/edge/test_wall.py::"
                "test_the_same_story_under_any_wall_clock_gives_the_same_events_at_the_same_times"
            ),
        ),
    ),
    Bug(
        "B5-gateway",
        "the gateway's deadlines leap with the wall clock",
        (
            Edit(
                "gateway/adapters/clock_system.py",
                "            self._now_ms = due_ms\n        elif",
                "            self._now_ms = wall_ms\n        elif",
            ),
        ),
        ("tests/unit/gateway/test_journal_clock.py::test_a_step_forward_waits_until_it_is_journaled",),
    ),
    Bug(
        "B6",
        "what is unknown begins a held condition anew",
        (
            Edit(
                "edge_agent/domain/held.py",
                "            self._interrupted = self.met_unknown = self._last is not None\n",
                "            self.reset()\n",
            ),
        ),
        ("tests/unit/edge/test_rule.py::test_unknown_adds_nothing_and_resets_nothing",),
    ),
    Bug(
        "B7",
        "on RTU framing the next request follows a timeout at once",
        (
            Edit(
                "edge_agent/adapters/fieldbus_confirmed.py",
                "            await self._recover(connection, unit, is_changing=is_changing, timeout_ms=timeout_ms)\n",
                "            self._in_step = connection\n            self._doubted.clear()\n",
            ),
        ),
        (
            (
                "tests/unit/edge/test_fieldbus_rtu.py::"
                "test_after_a_timeout_the_line_is_left_quiet_and_the_next_read_is_made_twice"
            ),
            "tests/unit/edge/test_fieldbus_rtu.py::test_a_device_slower_than_the_timeout_gives_no_wrong_value",
        ),
    ),
    Bug(
        "B8-agent",
        "the record of a loss is given up before the event that tells of it is committed",
        (
            Edit(
                "edge_agent/adapters/store_sqlite.py",
                "        self._losses = LossBook(self._facts, self._note)\n",
                "        self._losses = LossBook(self._facts, self._note)\n"
                "        with self._transaction():\n"
                "            self._facts.put(self._losses.facts(None, is_told=True, is_healed=False))\n",
            ),
        ),
        (
            (
                "tests/contract/test_store_disks.py::"
                "test_a_loss_taken_up_is_counted_once_wherever_the_next_run_is_killed"
            ),
        ),
    ),
    Bug(
        "B8-gateway",
        "a damaged journal is moved away before it is written down that it was",
        (
            Edit(
                "gateway/adapters/store_sql/journal_file.py",
                '        self._write_untold(number, f"{target.name}: {flaw}")\n',
                "",
            ),
        ),
        (
            (
                "tests/contract/test_journal_disks.py::"
                "test_a_journal_moved_aside_is_kept_whole_and_told_until_the_journal_tells_of_it"
            ),
        ),
    ),
    Bug(
        "B9-agent",
        "the watchdog is fed whatever the other loops do",
        (
            Edit(
                "edge_agent/runtime/watch.py",
                "        if pulse.look():\n            notify(",
                "        if pulse.look() or True:\n            notify(",
            ),
        ),
        (
            (
                "tests/unit/edge/test_runtime_watch.py::"
                "test_the_supervisor_gets_no_ping_while_a_loop_hangs_though_all_others_go_on"
            ),
        ),
    ),
    Bug(
        "B9-gateway",
        "the same in the gateway",
        (
            Edit(
                "gateway/services/pulse.py",
                "        if pulse.look():\n            notify(",
                "        if pulse.look() or True:\n            notify(",
            ),
        ),
        ("tests/unit/gateway/test_pulse.py::test_a_disk_that_hangs_is_named_and_stops_the_pings",),
    ),
    Bug(
        "B10",
        "points of equal time overwrite each other in InfluxDB: nothing of `seq` is in their time",
        (
            Edit(
                "gateway/domain/projection.py",
                "ns = max(at_us * 1000 + 2 * (seq % 500), near.get(series, 0) + 2)",
                "ns = at_us * 1000 + 0 * seq",
            ),
        ),
        (
            (
                "tests/unit/gateway/test_projection.py::"
                "test_equal_times_in_one_series_never_meet_even_when_the_agents_clock_stands_still"
            ),
            "tests/unit/gateway/test_projection.py::test_times_of_a_series_are_unique_and_do_not_depend_on_restarts",
        ),
    ),
)
