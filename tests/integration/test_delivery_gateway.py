"""The cases of the delivery protocol that concern the gateway, each with a real broker and a real gateway process.

The agent is scripted (it mints with the published language and keeps to the sender's rules), so that each case can be
brought about exactly. What counts is the journal afterwards: nothing lost unstated, nothing twice, each run in order.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.domain.journal import GapFound, GatewayRule, ReconciledClear, ReconciledRaise
from tests.integration.gateway_process import GatewayProcess
from tests.mqtt_agent import MqttAgent
from tests.scripted_agent import ScriptedAgent, Store, listed, note, raised, report, ulid
from tests.servers import Mosquitto

pytestmark = pytest.mark.integration

E, F, G = ulid(1), ulid(2), ulid(3)


@pytest.fixture
def gateway(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path / "gateway", mosquitto.port) as process:
        yield process


def run_of(epoch: str, notes: int, store: Store | None = None) -> Store:
    store = store or Store()
    store.start(epoch)
    for n in range(notes):
        store.add(note(f"n{n}"))
    return store


def settle(agent: ScriptedAgent, port: int, name: str = "agent") -> MqttAgent:
    """Run the sender until all is acked; returns it for its acks and counts."""
    with MqttAgent(agent, port, name) as sender:
        sender.settle()
    return sender


def all_of(*stores: Store) -> list[tuple[str, int]]:
    """Epoch and seq of every event of these stores, once each, in their order."""
    return list(dict.fromkeys((event.epoch, event.seq) for store in stores for event in store.events))


def test_everything_arrives_once_and_in_order(gateway: GatewayProcess, mosquitto: Mosquitto) -> None:
    store = run_of(F, 400, run_of(E, 700))
    settle(ScriptedAgent(store), mosquitto.port)
    assert gateway.held() == all_of(store)
    assert gateway.open_findings() == []


def test_a_fresh_gateway_gets_everything_from_an_agent_that_is_idle(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    store = run_of(E, 300)
    agent = ScriptedAgent(store)
    settle(agent, mosquitto.port)
    gateway.stop()
    gateway.restore(None)
    gateway.start()
    assert agent.acked == store.events[-1].position
    with MqttAgent(agent, mosquitto.port) as sender:
        sender.settle(lambda: any(ack.reset for ack in sender.acks) and sender.is_settled())
    assert gateway.held() == all_of(store)
    assert gateway.open_findings() == []


def test_a_gateway_restored_from_a_backup_is_refilled(gateway: GatewayProcess, mosquitto: Mosquitto) -> None:
    store = run_of(E, 100)
    agent = ScriptedAgent(store)
    settle(agent, mosquitto.port)
    gateway.stop()
    backup = gateway.back_up("backup.db")
    gateway.start()
    run_of(F, 200, store)
    settle(agent, mosquitto.port)
    gateway.stop()
    gateway.restore(backup)
    gateway.start()
    with MqttAgent(agent, mosquitto.port) as sender:
        sender.settle(lambda: any(ack.reset for ack in sender.acks) and sender.is_settled())
    assert gateway.held() == all_of(store)
    assert gateway.open_findings() == []


def test_a_gateway_older_than_the_agents_first_goes_on_after_a_stated_gap_and_the_report_heals(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    store = run_of(E, 20)
    agent = ScriptedAgent(store)
    settle(agent, mosquitto.port)
    gateway.stop()
    backup = gateway.back_up("backup.db")
    gateway.start()
    store.add(raised("X"))
    for _ in range(100):
        store.add(note())
    settle(agent, mosquitto.port)
    agent.pruned = 80
    gateway.stop()
    gateway.restore(backup)
    gateway.start()
    with MqttAgent(agent, mosquitto.port) as sender:
        sender.settle(lambda: any(ack.reset for ack in sender.acks) and sender.is_settled())
    (gap,) = gateway.bodies(GapFound)
    assert (gap.epoch, gap.from_seq, gap.to_seq, gap.final) == (E, 22, 80, True)
    assert gateway.held() == [(E, n) for n in (*range(1, 22), *range(81, 123))]
    assert gateway.open_findings() == [GatewayRule.STREAM_GAP]
    store.add(report(listed("X")))
    settle(agent, mosquitto.port)
    assert [body.occurrence for body in gateway.bodies(ReconciledRaise)] == ["X"]
    assert gateway.open_findings() == []


def test_a_restarted_agent_sends_what_is_left_of_its_old_run_first(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    store = run_of(E, 50)
    agent = ScriptedAgent(store)
    settle(agent, mosquitto.port)
    for _ in range(30):
        store.add(note("left"))
    store.start(F, clean_stop=False)
    settle(agent, mosquitto.port)
    assert gateway.held() == all_of(store)
    assert gateway.open_findings() == []


def test_a_restored_image_is_accepted_alarmed_as_a_fork_and_healed_by_its_report(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    store = run_of(E, 40)
    image = store.image()
    for _ in range(40):
        store.add(note("after the image"))
    store.add(raised("X"))
    settle(ScriptedAgent(store), mosquitto.port)
    image.start(F)
    restored = ScriptedAgent(image)
    settle(restored, mosquitto.port)
    assert gateway.held() == all_of(store, image)
    assert gateway.open_findings() == [GatewayRule.EPOCH_FORK]
    image.add(report())
    settle(restored, mosquitto.port)
    assert [body.occurrence for body in gateway.bodies(ReconciledClear)] == ["X"]
    assert gateway.open_findings() == []


def test_a_clone_beside_it_is_alarmed_and_nothing_of_either_is_lost(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    store = run_of(E, 30)
    first = ScriptedAgent(store)
    settle(first, mosquitto.port)
    image = store.image()
    image.start(F)
    clone = ScriptedAgent(image, acked=first.acked)
    with MqttAgent(first, mosquitto.port, "first") as one, MqttAgent(clone, mosquitto.port, "clone") as two:
        for _ in range(5):
            store.add(note("first"))
            image.add(note("clone"))
            two.settle()
            one.settle()
    held = gateway.held()
    assert sorted(held) == sorted(all_of(store, image))
    for epoch in (E, F):
        assert [key for key in held if key[0] == epoch] == sorted(key for key in held if key[0] == epoch)
    assert GatewayRule.IDENTITY_CONFLICT in gateway.open_findings()


def test_a_lost_store_ends_in_a_gap_with_an_open_end_and_its_occurrences_are_healed(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    old = run_of(E, 10)
    old.add(raised("X"))
    settle(ScriptedAgent(old), mosquitto.port)
    fresh = run_of(F, 3)
    settle(ScriptedAgent(fresh), mosquitto.port)
    (gap,) = gateway.bodies(GapFound)
    assert (gap.epoch, gap.from_seq, gap.to_seq, gap.final) == (E, 13, None, True)
    agent = ScriptedAgent(fresh, acked=fresh.events[-1].position)
    fresh.add(report(listed("X9")))
    settle(agent, mosquitto.port)
    assert [(body.occurrence, body.continues) for body in gateway.bodies(ReconciledRaise)] == [("X9", "X")]
    assert [body.occurrence for body in gateway.bodies(ReconciledClear)] == ["X"]
    assert gateway.open_findings() == []


def test_a_broker_that_is_killed_and_wiped_again_and_again_loses_nothing(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    store = run_of(E, 50)
    agent = ScriptedAgent(store)
    with MqttAgent(agent, mosquitto.port) as sender:
        for n in range(4):
            for _ in range(300):
                store.add(note(f"round {n}"))
            sender.beat()
            sender.send()
            mosquitto.kill()
            mosquitto.wipe()
            mosquitto.start()
            sender.settle(partial(is_acked, agent, len(store.events) - 100))
        sender.settle()
    assert gateway.held() == all_of(store)
    assert gateway.is_ready()


def is_acked(agent: ScriptedAgent, index: int) -> bool:
    """Whether the agent has come as far as the event at `index`."""
    return agent.acked is not None and (agent.store.index_of(agent.acked) or 0) >= index


@pytest.mark.parametrize("seed", [1, 2])
def test_a_gateway_killed_at_any_moment_has_kept_every_promise(
    gateway: GatewayProcess, mosquitto: Mosquitto, seed: int
) -> None:
    dice = random.Random(seed)
    store = run_of(E, 100)
    agent = ScriptedAgent(store)
    with MqttAgent(agent, mosquitto.port) as sender:
        for n in range(3):
            for _ in range(400):
                store.add(note(f"round {n}"))
            goal = len(store.events) - dice.randint(1, 390)
            sender.settle(partial(is_acked, agent, goal))
            gateway.kill()
            promised = agent.acked
            assert promised is not None
            assert (promised.epoch, promised.seq) in gateway.held()
            gateway.start()
        sender.settle()
    assert gateway.held() == all_of(store)
    assert gateway.open_findings() == []


def test_days_of_backlog_wait_in_the_agent_and_not_on_the_broker(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    gateway.stop()
    store = run_of(E, 3000)
    agent = ScriptedAgent(store)
    with MqttAgent(agent, mosquitto.port) as sender:
        sender.beat()
        sender.send()
        assert sender.sent == 256
        gateway.start()
        sender.settle()
    assert gateway.held() == all_of(store)


def test_of_two_gateways_on_one_postgresql_the_other_takes_over_when_one_is_killed(
    mosquitto: Mosquitto, postgres_url: str, tmp_path: Path
) -> None:
    store = run_of(E, 100)
    agent = ScriptedAgent(store)
    with (
        GatewayProcess(tmp_path / "one", mosquitto.port, postgres_url) as one,
        GatewayProcess(tmp_path / "two", mosquitto.port, postgres_url) as two,
    ):
        assert "writable" in journal_detail(one)
        assert "following" in journal_detail(two)
        settle(agent, mosquitto.port)
        one.kill()
        for _ in range(100):
            store.add(note("for the other"))
        settle(agent, mosquitto.port)
        assert "writable" in journal_detail(two)
        assert two.held() == all_of(store)
        one.start()
        assert "following" in journal_detail(one)


def journal_detail(gateway: GatewayProcess) -> str:
    """What readiness says of the journal."""
    checks = gateway.get("/readyz")["checks"]
    assert isinstance(checks, dict)
    journal = checks["journal"]
    assert isinstance(journal, dict)
    return str(journal["detail"])


def test_a_backup_of_a_running_gateway_made_with_its_log_is_as_good(
    gateway: GatewayProcess, mosquitto: Mosquitto
) -> None:
    """Copied cold from a killed gateway: database and write-ahead log together."""
    store = run_of(E, 200)
    agent = ScriptedAgent(store)
    settle(agent, mosquitto.port)
    gateway.kill()
    copies = {
        left.name: shutil.copy(left, gateway.folder / f"cold-{left.name}")
        for left in gateway.folder.glob("gateway.db*")
    }
    gateway.restore(None)
    for name, copied in copies.items():
        shutil.copy(copied, gateway.folder / name)
    gateway.start()
    store.add(note("after"))
    settle(agent, mosquitto.port)
    assert gateway.held() == all_of(store)
