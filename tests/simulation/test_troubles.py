"""Each trouble really strikes, and the product survives it by itself: a knob that does nothing would prove nothing."""

from __future__ import annotations

import pytest

from edge_agent.wire.event import OutboxOverflow
from gateway.domain.journal import EdgeEvent, FindingRaised, GapFound, GatewayRule, ReconciledClear
from tests.simulation.runs import scratch
from tests.simulation.suite import live
from tests.simulation.swarm import Swarm, calm
from tests.simulation.world import World

pytestmark = pytest.mark.thorough

TROUBLES = {
    "clone": calm(clone_every_s=15),
    "event damaged": calm(agent_crash_every_s=8, store_damage_share=1.0),
    "store unreadable": calm(agent_crash_every_s=8, store_scribble_share=1.0),
    "store lost": calm(agent_crash_every_s=8, store_loss_share=1.0),
    "store restored": calm(agent_crash_every_s=6, store_image_share=1.0),
    "reboot without time": calm(agent_crash_every_s=8, reboot_share=1.0, unsynced_share=1.0),
    "event pruned": calm(window_kb=60),
    "journal full": calm(journal_full_every_s=10),
    "journal lost": calm(gateway_crash_every_s=8, journal_loss_share=1.0),
    "journal restored": calm(gateway_crash_every_s=6, journal_restore_share=1.0),
    "historian down": calm(historian_down_every_s=5),
    "table down": calm(table_down_every_s=10),
    "broker wiped": calm(broker_down_every_s=10, broker_wipe_share=1.0),
    "disk full": calm(disk_full_every_s=10),
}


def lived(swarm: Swarm, seed: int = 1) -> World:
    world = live(swarm, seed=seed)
    assert [str(finding) for finding in world.auditor.findings] == []
    return world


@pytest.mark.parametrize("kind", TROUBLES)
def test_it_strikes_and_is_survived(kind: str) -> None:
    assert lived(TROUBLES[kind]).troubles.struck[kind] > 0


def journaled(world: World, kind: type[object]) -> list[object]:
    return [entry.body for entry in world.auditor.entries if isinstance(entry.body, kind)]


def test_a_clone_is_alarmed_as_one() -> None:
    found = journaled(lived(TROUBLES["clone"]), FindingRaised)
    rules = {body.rule for body in found if isinstance(body, FindingRaised)}
    assert {GatewayRule.IDENTITY_CONFLICT, GatewayRule.EPOCH_FORK} & rules


def test_a_doubt_that_comes_back_with_a_backup_is_sat_out_before_anything_is_judged() -> None:
    world = lived(calm(clone_every_s=10, gateway_crash_every_s=15, journal_restore_share=1.0), seed=3)
    committed_ns, restored_ns = world.auditor.committed_ns, world.auditor.journal_mishaps[-1]
    of_backup = [entry.body for entry in world.auditor.entries if committed_ns[entry.position] < restored_ns]
    since = [entry.body for entry in world.auditor.entries if committed_ns[entry.position] > restored_ns]
    raised = {body.rule for body in of_backup if isinstance(body, FindingRaised)}
    assert GatewayRule.IDENTITY_CONFLICT in raised
    assert any(isinstance(body, ReconciledClear) for body in since)  # what the clone had left open


def test_a_lost_store_is_a_stated_gap() -> None:
    assert journaled(lived(TROUBLES["store lost"]), GapFound)


def test_an_outbox_that_is_full_says_so() -> None:
    world = lived(calm(outbox_kb=8, partition_every_s=12))
    bodies = [body.event.body for body in journaled(world, EdgeEvent) if isinstance(body, EdgeEvent)]
    assert world.ward.losses
    assert any(isinstance(body, OutboxOverflow) for body in bodies)


def test_lines_that_the_historian_refuses_are_kept_and_the_others_arrive() -> None:
    world = lived(calm(historian_bad_share=0.2, historian_strict=True, historian_unknown_share=0.3))
    assert world.gateway.points.refused
    assert len(world.gateway.points.points) > len(world.gateway.points.refused)


def test_people_who_acknowledge_at_once_are_told_who_was_first() -> None:
    world = lived(calm(operator_every_s=2, race_share=1.0))
    acts = [act for act in world.operators.acts if act.note is None]
    assert any(act.is_done for act in acts)
    assert {act.first for act in acts if not act.is_done} <= {act.who for act in acts if act.is_done}


def test_a_folder_of_a_run_is_gone_after_it() -> None:
    with scratch() as folder:
        assert folder.is_dir()
    assert not folder.exists()
