"""The cases of the delivery protocol, section 4, with both ends real: agent, broker and gateway as processes of their own.

Each test brings its case about at a machine whose door opens and closes meanwhile, and ends with the books: the journal
is a gapless prefix of what the agent stored, but for gaps that it states; both ends verify; every occurrence is told of
once and none is left open; what the case alarms was raised, and cleared where it heals.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from edge_agent.domain.units import NS_PER_S, UtcNs
from edge_agent.wire.event import Checkpoint, Observation, OutboxOverflow, StateReport
from gateway.domain.journal import GapFound, GatewayRule, ReconciledClear
from tests.integration.corner_rig import Plant, wait_for
from tests.integration.edge_rig import TOPICS, AgentProcess
from tests.integration.mailbox import mailbox, publish, tell
from tests.integration.old_stores import (
    R01,
    begin_old_run,
    copy_store,
    count_dropped,
    end_positions,
    go_on,
    lose_store,
    open_in,
)

pytestmark = pytest.mark.integration

DAY_S = 86_400


EVERYTHING = "topic readwrite #\n"
NO_EVENTS = f"topic deny {TOPICS}/events\n"


def days_ago(days: float) -> UtcNs:
    return UtcNs(time.time_ns() - round(days * DAY_S * NS_PER_S))


def test_a_gateway_that_is_away_restored_or_deleted_is_refilled_and_a_broker_that_drops_is_no_matter(
    tmp_path: Path,
) -> None:
    conf = "max_inflight_messages 20\nmax_queued_messages 80"
    with Plant(tmp_path, broker_conf=conf) as plant:
        run = begin_old_run(plant.store, days_ago(0.1))
        run.note(250)
        run.stop()
        os.kill(plant.gateway.pid, signal.SIGSTOP)
        plant.agent.start()
        wait_for("what the frozen gateway's queue has no room for", lambda: plant.agent.log_has("connected"))
        time.sleep(1)
        os.kill(plant.gateway.pid, signal.SIGCONT)
        plant.open_door()
        plant.close_door()
        plant.settle()
        plant.gateway.stop()
        backup = plant.gateway.back_up("backup.db")
        plant.gateway.start()
        plant.open_door()
        plant.gateway.stop()
        plant.gateway.restore(backup)
        plant.broker.kill()
        plant.broker.wipe()
        plant.broker.start()
        plant.gateway.start()
        wait_for("the violation again", lambda: len(plant.raised()) == 2)
        plant.close_door()
        plant.settle()
        plant.gateway.stop()
        plant.gateway.restore(None)
        plant.gateway.start()
        wait_for("all of it again", lambda: len(plant.raised()) == 2)
        plant.settle()
        plant.stop_agent()
        plant.settle()
        plant.balance()
        assert plant.open_findings() == []


def test_what_was_acked_is_pruned_by_age_and_by_size_and_an_older_gateway_goes_on_after_a_stated_gap(
    tmp_path: Path,
) -> None:
    with Plant(tmp_path) as plant:
        run = begin_old_run(plant.store, days_ago(9))
        run.note(50)
        run.stop(at_s=1.5 * DAY_S)
        run = begin_old_run(plant.store, days_ago(7.4))
        run.note(100)
        run.stop(at_s=7.3 * DAY_S)
        last_of_old_run = plant.stored()[51]
        plant.agent.start()
        plant.open_door()
        plant.close_door()
        plant.settle()
        wait_for("pruning by age", lambda: end_positions(plant.store)[0] == last_of_old_run.position)
        assert isinstance(last_of_old_run.body, Checkpoint)
        plant.stop_agent()
        plant.settle()
        plant.balance()
        plant.gateway.stop()
        backup = plant.gateway.back_up("backup.db")
        plant.gateway.start()

        run = begin_old_run(plant.store, days_ago(0))
        for _ in range(10):
            run.note(40, size=45_000)
        run.stop()
        _, newest = end_positions(plant.store)
        plant.agent.start()
        plant.open_door()
        plant.settle()
        wait_for("pruning by size", lambda: end_positions(plant.store)[0].epoch == newest.epoch)

        plant.gateway.stop()
        plant.gateway.restore(backup)
        plant.gateway.start()
        plant.wait_for_finding("stream_gap", "cleared")
        wait_for("the violation after the gap", lambda: len(plant.raised()) == 2)
        plant.close_door()
        plant.settle()
        plant.stop_agent()
        plant.settle()
        (before, within) = plant.gateway.bodies(GapFound)
        assert (before.final, before.to_seq, within.final) == (True, None, True)
        first = plant.stored()[0]
        assert isinstance(first.body, Checkpoint)
        assert (within.epoch, within.from_seq, within.to_seq) == (newest.epoch, 1, first.seq - 1)
        assert newest in [event.position for event in plant.stored()], "size takes no more than it must"
        plant.balance(lost=[(newest.epoch, seq) for seq in range(1, first.seq)])


def test_damaged_rows_are_a_stated_gap_and_the_rest_is_delivered(tmp_path: Path) -> None:
    with Plant(tmp_path) as plant:
        plant.agent.start()
        plant.open_door()
        plant.settle()
        plant.gateway.stop()
        plant.set_door(closed=True)
        wait_for(
            "the end of the violation in the store", lambda: len(plant.stored()) > len(plant.journaled())
        )
        plant.agent.kill()
        run = begin_old_run(plant.store, days_ago(0))
        run.note(30)
        run.store.close()
        spoilt = plant.stored()[-20:-15]
        flip_bytes(plant.store, [event.hash for event in spoilt])
        plant.gateway.start()
        plant.agent.start()
        plant.wait_for_finding("stream_gap", "cleared")
        wait_for("the damage in the journal", lambda: bool(observed(plant, "store_damaged")))
        plant.close_door()
        plant.settle()
        plant.stop_agent()
        plant.settle()
        (gap,) = plant.gateway.bodies(GapFound)
        assert (gap.epoch, gap.from_seq, gap.to_seq) == (spoilt[0].epoch, spoilt[0].seq, spoilt[-1].seq)
        plant.balance(lost=[(event.epoch, event.seq) for event in spoilt], verifies=False)
        assert plant.open_findings() == [GatewayRule.STORE_DAMAGED]
        told = plant.verify_agent()
        assert told.returncode == 1
        assert "flipped" in told.stderr


def flip_bytes(store: Path, hashes: list[str]) -> None:
    """Flip a bit in the payload of each of these events, in the file itself."""
    with closing(sqlite3.connect(store)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(store.read_bytes())
    for digest in hashes:
        where = data.index(b'"hash":"' + digest.encode())
        data[where + 20] ^= 1
    store.write_bytes(data)


def observed(plant: Plant, what: str) -> list[Observation]:
    bodies = [event.body for event in plant.journaled()]
    return [body for body in bodies if isinstance(body, Observation) and body.what == what]


def has_nothing_open(plant: Plant, store: Path) -> bool:
    return not open_in(plant.stored(store))


def test_a_restored_image_forks_off_a_lost_store_ends_in_a_gap_and_a_clone_is_told_of(tmp_path: Path) -> None:
    with Plant(tmp_path) as plant:
        plant.agent.start()
        plant.open_door()
        plant.close_door()
        plant.stop_agent()
        plant.settle()
        image = tmp_path / "image"
        copy_store(plant.store, image)
        plant.agent.start()
        plant.open_door()
        plant.settle()
        plant.agent.kill()
        lose_store(plant.store)
        copy_store(image / plant.store.name, plant.store.parent)
        plant.agent.start()
        plant.wait_for_finding("epoch_fork", "cleared")
        wait_for("one violation that is open", lambda: len(plant.open_occurrences()) == 1)
        plant.close_door()
        plant.settle()
        plant.stop_agent()
        plant.settle()
        plant.balance()
        assert plant.gateway.bodies(GapFound) == []

        plant.agent.start()
        plant.open_door()
        plant.settle()
        _, end = end_positions(plant.store)
        plant.agent.kill()
        lose_store(plant.store)
        plant.agent.start()
        plant.wait_for_finding("stream_gap", "cleared")
        (gap,) = plant.gateway.bodies(GapFound)
        assert (gap.epoch, gap.from_seq, gap.to_seq, gap.final) == (end.epoch, end.seq + 1, None, True)
        wait_for("the violation as the new store has it", lambda: len(plant.open_occurrences()) == 1)
        plant.close_door()
        plant.settle()
        plant.stop_agent()
        plant.settle()
        plant.balance()
        assert plant.open_findings() == []

        clone = AgentProcess(tmp_path / "clone" / "agent.yaml")
        plant.configure(clone)
        copied = clone.config.parent / "var" / plant.store.name
        copy_store(plant.store, copied.parent)
        both = (plant.agent, plant.store), (clone, copied)
        try:
            for agent, _ in both:
                agent.start()
            plant.open_door()
            plant.wait_for_finding("identity_conflict", "active")
            plant.close_door()
            for agent, _ in both:
                agent.kill()
            for agent, store in both:
                agent.start()
                wait_for("the end of its violation", partial(has_nothing_open, plant, store))
                plant.settle(store)
                agent.kill()
        finally:
            clone.kill()
        held = {event.hash for event in plant.journaled()}
        assert {event.hash for event in [*plant.stored(), *plant.stored(copied)]} <= held, (
            "nothing of either is lost"
        )
        plant.balance()


def test_a_resumed_snapshot_forks_and_what_conflicts_is_kept_alarmed_and_told(tmp_path: Path) -> None:
    """The machine went on after the snapshot was taken; the gateway knows what it did then, the snapshot does not."""
    with mailbox() as box, Plant(tmp_path, gateway_conf=tell(box)) as plant:
        plant.agent.start()
        wait_for("the first report", lambda: bool(reports(plant)))
        plant.settle()
        plant.broker.kill()
        gone_on = tmp_path / "gone-on"
        plant.agent.send(signal.SIGSTOP)
        copy_store(plant.store, gone_on)
        plant.agent.send(signal.SIGCONT)
        held = plant.stored()
        plant.set_door(closed=False)
        wait_for("its own violation", lambda: bool(open_in(plant.stored())))
        plant.agent.send(signal.SIGSTOP)

        run = go_on(gone_on / plant.store.name)
        run.note(3)
        run.raise_p1("of-the-other-history")
        run.store.close()
        others = plant.stored(gone_on / plant.store.name)[len(held) :]
        plant.broker.start()
        wait_for("the gateway at the broker again", plant.gateway.is_ready)
        publish(plant.broker.port, [(f"{TOPICS}/events", event.payload) for event in others])
        wait_for(
            "the other history in the journal", lambda: "of-the-other-history" in plant.open_occurrences()
        )
        plant.agent.send(signal.SIGCONT)

        wait_for("the fork in the journal", lambda: bool(observed(plant, "epoch_fork")))
        conflict = plant.wait_for_finding("evidence_conflict", "active")
        assert conflict["priority"] == "P2"
        (own,) = open_in(plant.stored())
        assert plant.findings(R01)[0]["priority"] == "P1"
        wait_for("the violation told", lambda: "raised" in box.events(own))
        wait_for("the report that ends the other", lambda: plant.open_occurrences() == [own])
        plant.close_door()
        plant.settle()
        plant.stop_agent()
        plant.settle()
        wait_for("its end told", lambda: "cleared" in box.events(own))
        mine = [event for event in plant.stored()[len(held) :] if event.epoch == held[-1].epoch]
        assert {event.hash for event in plant.quarantined()} == {event.hash for event in mine}
        plant.balance(refused=mine)


def reports(plant: Plant) -> list[StateReport]:
    return [event.body for event in plant.journaled() if isinstance(event.body, StateReport)]


def test_what_finds_no_room_is_counted_alarmed_and_healed_by_the_report(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(EVERYTHING)
    with Plant(tmp_path, broker_conf=f"acl_file {acl}") as plant:
        plant.agent.start()
        plant.open_door()
        plant.settle()
        (before,) = plant.open_occurrences()
        plant.agent.kill()
        acl.write_text(EVERYTHING + NO_EVENTS)
        os.kill(plant.broker.pid, signal.SIGHUP)
        run = begin_old_run(plant.store, days_ago(0))
        run.fill()
        run.store.close()
        plant.agent.start()
        plant.wait_for_finding("store_filling", "active")
        dropped = count_dropped(plant.store)
        plant.set_door(closed=True)
        wait_for("its end to find no room", lambda: count_dropped(plant.store) >= dropped + 2)
        dropped = count_dropped(plant.store)
        plant.set_door(closed=False)
        wait_for("the next to find no room", lambda: count_dropped(plant.store) >= dropped + 2)
        acl.write_text(EVERYTHING)
        os.kill(plant.broker.pid, signal.SIGHUP)
        plant.wait_for_finding("store_filling", "cleared")
        wait_for("the next in the journal", lambda: before not in plant.open_occurrences() != [])
        plant.close_door()
        plant.settle()
        plant.stop_agent()
        plant.settle()
        (overflow,) = [body for event in plant.journaled() if isinstance(body := event.body, OutboxOverflow)]
        assert overflow.dropped >= 4
        healed = [body.occurrence for body in plant.gateway.bodies(ReconciledClear)]
        assert before in healed
        plant.balance()
        assert plant.open_findings() == [GatewayRule.STORE_DAMAGED], "what was lost is to be looked after"
