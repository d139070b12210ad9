"""From messages to journal and acks: one batch, one transaction, promises only after it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from edge_agent.wire.chain import canonical, link_hash
from edge_agent.wire.event import Body, ClockState, Event, Json, Observation, OutboxOverflow, Priority
from edge_agent.wire.status import (
    Ack,
    AgentModel,
    GoneRange,
    GuardModel,
    Health,
    MachineModel,
    decode_ack,
    encode_status,
)
from edge_agent.wire.topics import Channel, topic
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.instants import iso_utc
from gateway.domain.journal import (
    AgentModelled,
    EdgeEvent,
    EntryBody,
    FindingCleared,
    FindingRaised,
    GapClosed,
    GapFound,
    GatewayRule,
    MachineModelled,
    MachineRemoved,
    Mark,
    Quarantined,
    ReconciledClear,
    ReconciledRaise,
)
from gateway.domain.listing import Query
from gateway.domain.violation import Origin, Violation
from gateway.ports import Fold
from gateway.services.ingest import QUARANTINE_PER_MINUTE, RETRY_S, TICK_S, Ingest
from gateway.services.presence import PresenceWatch
from tests.scripted_agent import (
    AGENT,
    SITE,
    ScriptedAgent,
    Store,
    cleared,
    listed,
    note,
    raised,
    report,
    ulid,
)
from tests.unit.gateway.journal_rig import AwayJournal, FakeIntake, Letter, WoundClock

E, F, G = ulid(1), ulid(2), ulid(3)
BodyT = TypeVar("BodyT", bound=EntryBody)


class Rig:
    """A gateway's ingest over a real journal."""

    def __init__(self, journal: SqlJournal, clock: WoundClock, findings: OpenFindings) -> None:
        self.journal, self.clock, self.findings = journal, clock, findings
        self.intake = FakeIntake()
        self.presence = PresenceWatch(journal, clock, findings)
        self.ingest = Ingest(journal, self.intake, clock, findings, self.presence)

    async def send(self, *events: Event, site: str = SITE, agent: str = AGENT) -> None:
        where = topic(site, agent, Channel.EVENTS)
        await self.ingest.take([Letter(where, event.payload) for event in events])

    async def put(self, channel: Channel, payload: bytes, *rest: str, retain: bool = True) -> None:
        await self.ingest.take([Letter(topic(SITE, AGENT, channel, *rest), payload, retain)])

    async def beat(self, health: Health) -> None:
        await self.put(Channel.HEALTH, encode_status(health), retain=False)

    async def pass_time(self, ms: int) -> None:
        self.clock.now_ms += ms
        await self.ingest.tick()

    def acks(self) -> list[Ack]:
        """What was published on the agent's ack topic."""
        found = [decode_ack(payload) for where, payload in self.intake.published if where.endswith("/ack")]
        assert all(isinstance(ack, Ack) for ack in found)
        return [ack for ack in found if isinstance(ack, Ack)]

    def bodies(self, kind: type[BodyT]) -> list[BodyT]:
        entries = self.journal.entries_after(0, 10_000)
        return [entry.body for entry in entries if isinstance(entry.body, kind)]

    def held(self) -> list[tuple[str, int]]:
        return [(body.event.epoch, body.event.seq) for body in self.bodies(EdgeEvent)]

    def rows(self) -> dict[str, Violation]:
        """The violation log."""
        page = SqlAlarmReads(self.journal.readers).violations(Query({}))
        return {row.occurrence: row for row in page.items if row.origin is Origin.AGENT}

    def open_rules(self) -> list[GatewayRule]:
        return [subject.rule for subject in self.findings.adopted_subjects()]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    clock, findings = WoundClock(), OpenFindings()
    folds: dict[str, Fold] = {"findings": findings, "book": AlarmBook()}
    journal = await SqlJournal.open(f"sqlite:///{tmp_path}/g.db", clock, folds)
    yield Rig(journal, clock, findings)
    await journal.close()


def run_of(epoch: str, *bodies: Body, store: Store | None = None) -> Store:
    store = store or Store()
    store.start(epoch)
    for body in bodies:
        store.add(body)
    return store


def health_of(store: Store, **changes: object) -> Health:
    return replace(ScriptedAgent(store).health(), **changes)  # type: ignore[arg-type]


# batches and promises


async def test_a_batch_is_journaled_pubacked_and_acked_up_to_its_last_event(rig: Rig) -> None:
    store = run_of(E, note(), note())
    await rig.send(*store.events)
    assert rig.held() == [(E, 1), (E, 2), (E, 3)]
    assert len(rig.intake.acknowledged) == 3
    assert rig.acks() == [Ack(E, E, 3, store.events[2].hash, reset=False)]


async def test_nothing_is_promised_while_the_journal_is_away_and_all_of_it_afterwards(rig: Rig) -> None:
    away = AwayJournal(rig.journal)
    ingest = Ingest(away, rig.intake, rig.clock, rig.findings, rig.presence)
    store = run_of(E, note())
    where = topic(SITE, AGENT, Channel.EVENTS)
    task = asyncio.create_task(ingest.take([Letter(where, event.payload) for event in store.events]))
    await asyncio.sleep(0.05)
    assert not rig.intake.acknowledged
    assert not rig.intake.published
    away.is_away = False
    await asyncio.wait_for(task, 10 * RETRY_S)
    assert rig.held() == [(E, 1), (E, 2)]
    assert len(rig.intake.acknowledged) == 2
    assert len(rig.acks()) == 1


async def test_each_epoch_of_a_batch_is_answered_and_the_one_heard_last_stays(rig: Rig) -> None:
    store = run_of(F, store=run_of(E, note()))
    await rig.send(*store.events)
    assert [(ack.to, ack.seq) for ack in rig.acks()] == [(E, 2), (F, 1)]


async def test_duplicates_are_acked_and_not_journaled_again(rig: Rig) -> None:
    store = run_of(E, note())
    await rig.send(*store.events)
    await rig.send(*store.events)
    assert rig.held() == [(E, 1), (E, 2)]
    assert len(rig.acks()) == 2


# poison


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"not json", b"[1]", b'{"v":1}', b"[" * 30_000, b'{"a":NaN}', b"x" * 70_000],
    ids=["empty", "no UTF-8", "no JSON", "no object", "no envelope", "deep", "NaN", "long"],
)
async def test_poison_is_kept_raw_pubacked_never_acked_and_blocks_nothing(rig: Rig, payload: bytes) -> None:
    store = run_of(E)
    where = topic(SITE, AGENT, Channel.EVENTS)
    await rig.ingest.take([Letter(where, payload), Letter(where, store.events[0].payload)])
    assert rig.held() == [(E, 1)]
    assert len(rig.bodies(Quarantined)) == 1
    assert rig.open_rules() == [GatewayRule.QUARANTINE]
    assert len(rig.intake.acknowledged) == 2
    assert [ack.seq for ack in rig.acks()] == [1]


@pytest.mark.parametrize(
    "poison",
    [
        {"epoch": "\ud800"},
        {"acked": {"epoch": "\ud800", "seq": 1, "hash": "x"}},
        {"acked": {"epoch": E, "seq": 2**70, "hash": "x"}},
        {"devices": {"\ud800": {"up": True, "age_ms": 0, "polls": 0, "errors": "none"}}},
    ],
    ids=["epoch", "acked", "huge", "device"],
)
async def test_a_beat_that_nothing_could_store_or_look_for_is_quarantined(
    rig: Rig, poison: dict[str, Json]
) -> None:
    """It would be an error at each try; and it is retained, so at each start, too."""
    await rig.beat(health_of(run_of(E)))
    document = json.loads(encode_status(health_of(run_of(E)))) | poison
    await rig.put(Channel.HEALTH, json.dumps(document).encode())
    assert len(rig.bodies(Quarantined)) == 1
    rig.clock.now_ms += 60_000
    await rig.presence.tick()
    assert rig.open_rules() == [GatewayRule.QUARANTINE, GatewayRule.MONITORING_LOST]


@pytest.mark.parametrize(
    "told",
    [
        OutboxOverflow(7, "2026-11-22T00:00:00Z", "2026-11-22T00:01:00Z"),
        Observation("store_damaged", {"lost_end": "it ends at place 3; places up to 9 were in it"}),
    ],
)
async def test_what_an_agent_says_it_lost_is_alarmed(rig: Rig, told: Body) -> None:
    store = run_of(E)
    store.add(told)
    await rig.send(*store.events)
    assert rig.open_rules() == [GatewayRule.STORE_DAMAGED]


async def test_an_event_whose_hash_does_not_fit_is_quarantined(rig: Rig) -> None:
    payload = run_of(E).events[0].payload.replace(b'"clean_stop":true', b'"clean_stop":false')
    await rig.put(Channel.EVENTS, payload, retain=False)
    assert rig.held() == []
    assert rig.bodies(Quarantined)[0].reason == "the hash does not match the content"


async def test_an_event_on_another_agents_topic_is_quarantined(rig: Rig) -> None:
    await rig.send(run_of(E).events[0], agent="gw-02")
    assert rig.held() == []
    assert rig.bodies(Quarantined)[0].agent == "gw-02"
    assert rig.acks() == []


async def test_a_topic_that_is_none_of_ours_is_quarantined(rig: Rig) -> None:
    await rig.ingest.take([Letter("guardwatch/v1/UPPER/x/events", b"{}")])
    assert [body.site for body in rig.bodies(Quarantined)] == [None]


async def test_a_flood_of_poison_is_bounded_and_the_finding_stands(rig: Rig) -> None:
    where = topic(SITE, AGENT, Channel.EVENTS)
    await rig.ingest.take([Letter(where, b"x")] * (QUARANTINE_PER_MINUTE + 50))
    assert len(rig.bodies(Quarantined)) == QUARANTINE_PER_MINUTE
    assert rig.ingest.counters.refused_uncounted == 50
    await rig.pass_time(61_000)
    await rig.put(Channel.EVENTS, b"y", retain=False)
    assert len(rig.bodies(Quarantined)) == QUARANTINE_PER_MINUTE + 1


async def test_a_quarantine_finding_ends_after_a_quiet_hour(rig: Rig) -> None:
    await rig.put(Channel.EVENTS, b"x", retain=False)
    await rig.pass_time(3_500_000)
    await rig.put(Channel.EVENTS, b"y", retain=False)
    await rig.pass_time(3_500_000)
    assert rig.open_rules() == [GatewayRule.QUARANTINE]
    await rig.pass_time(100_000)
    assert rig.open_rules() == []


async def test_findings_that_are_over_are_not_remembered(rig: Rig) -> None:
    strangers = [topic(SITE, f"stranger-{n}", Channel.EVENTS) for n in range(50)]
    await rig.ingest.take([Letter(where, b"x") for where in strangers])
    await rig.pass_time(1000)
    assert len(rig.ingest._seen_ms) == len(rig.open_rules()) == 50
    await rig.pass_time(3_600_000)
    await rig.pass_time(1000)
    assert (rig.open_rules(), rig.ingest._seen_ms) == ([], {})


async def test_an_event_of_a_younger_version_keeps_its_place_and_is_alarmed(rig: Rig) -> None:
    store = run_of(E)
    document: dict[str, Json] = {**json.loads(store.add(note()).payload), "kind": "telepathy"}
    payload = reseal(document)
    await rig.send(store.events[0])
    await rig.put(Channel.EVENTS, payload, retain=False)
    assert rig.held() == [(E, 1), (E, 2)]
    assert rig.bodies(EdgeEvent)[1].marks == (Mark.UNRECOGNISED,)
    assert rig.open_rules() == [GatewayRule.QUARANTINE]
    assert rig.acks()[-1].seq == 2


async def test_a_raise_that_cannot_be_read_counts_as_the_worst_each_of_its_own(rig: Rig) -> None:
    store = run_of(E)
    await rig.send(store.events[0])
    prev = store.events[0].hash
    for seq in (2, 3):
        document: dict[str, Json] = {
            **json.loads(store.add(raised(f"X{seq}")).payload),
            "priority": "P9",
            "prev": prev,
        }
        payload = reseal(document)
        prev = str(json.loads(payload)["hash"])
        await rig.put(Channel.EVENTS, payload, retain=False)
    assert rig.held() == [(E, 1), (E, 2), (E, 3)]
    found = rig.bodies(FindingRaised)
    assert [(body.rule, body.priority) for body in found] == 2 * [(GatewayRule.QUARANTINE, Priority.P1)]
    await rig.pass_time(3_600_000)
    assert rig.open_rules() == []


def reseal(document: dict[str, Json]) -> bytes:
    """A document with the hash that fits it."""
    document.pop("hash")
    return canonical({**document, "hash": link_hash(str(document["prev"]), document)})


# gaps


async def test_a_hole_that_fills_in_time_is_never_alarmed(rig: Rig) -> None:
    store = run_of(E, note(), note(), note())
    await rig.send(store.events[0], store.events[3])
    await rig.pass_time(3900)
    await rig.send(*store.events[1:])
    await rig.pass_time(10_000)
    assert rig.bodies(GapFound) == []
    assert len(rig.held()) == 4


async def test_a_hole_that_stays_is_alarmed_after_five_seconds_and_cleared_when_it_fills(rig: Rig) -> None:
    store = run_of(E, note(), note(), note())
    await rig.send(store.events[0], store.events[3])
    await rig.pass_time(5000)
    (gap,) = rig.bodies(GapFound)
    assert (gap.epoch, gap.from_seq, gap.to_seq, gap.final) == (E, 2, 3, False)
    assert rig.open_rules() == [GatewayRule.STREAM_GAP]
    await rig.send(store.events[0], store.events[3])
    await rig.pass_time(5000)
    assert len(rig.bodies(GapFound)) == 1
    await rig.send(*store.events[1:])
    assert rig.bodies(GapClosed) == [GapClosed(SITE, AGENT, gap.gap, filled=True)]
    assert rig.open_rules() == []


async def test_a_hole_is_visible_within_five_seconds_however_the_looks_fall(rig: Rig) -> None:
    store = run_of(E, note(), note(), note())
    await rig.send(store.events[0], store.events[3])
    elapsed_ms = 1000 * TICK_S - 1
    await rig.pass_time(round(elapsed_ms))
    while elapsed_ms + 1000 * TICK_S < 5000:
        await rig.pass_time(round(1000 * TICK_S))
        elapsed_ms += 1000 * TICK_S
    assert rig.bodies(GapFound) != []


async def test_a_hole_that_becomes_final_waits_for_the_next_complete_report(rig: Rig) -> None:
    store = run_of(E, note(), note(), note())
    await rig.send(store.events[0], store.events[3])
    await rig.pass_time(5000)
    await rig.beat(health_of(store, first=store.events[3].position))
    await rig.send(store.events[3])
    assert [(gap.from_seq, gap.to_seq, gap.final) for gap in rig.bodies(GapFound)] == [
        (2, 3, False),
        (2, 3, True),
    ]
    assert rig.bodies(GapClosed)[0].filled is False
    assert rig.open_rules() == [GatewayRule.STREAM_GAP] * 2
    await rig.send(store.add(report(part=1, parts=2)))
    assert rig.open_rules() == [GatewayRule.STREAM_GAP] * 2
    await rig.send(store.add(report(part=2, parts=2)))
    assert rig.open_rules() == []


async def test_a_damaged_event_is_a_final_gap_at_once(rig: Rig) -> None:
    store = run_of(E, note(), note())
    await rig.send(store.events[0])
    await rig.beat(health_of(store, gone=(GoneRange(E, 2, 2),)))
    await rig.send(store.events[2])
    assert [(gap.from_seq, gap.to_seq, gap.final) for gap in rig.bodies(GapFound)] == [(2, 2, True)]
    assert rig.held() == [(E, 1), (E, 3)]


# doubts


async def test_a_conflict_is_kept_raw_alarmed_and_answered_by_our_hash_and_its_raise_is_told(
    rig: Rig,
) -> None:
    ours, theirs = run_of(E, note()), run_of(E)
    await rig.send(*ours.events)
    theirs.add(raised("X"))
    await rig.beat(health_of(theirs))
    await rig.send(theirs.events[1])
    await rig.send(theirs.events[1])
    assert len(rig.bodies(Quarantined)) == 1
    assert rig.open_rules() == [GatewayRule.EVIDENCE_CONFLICT]
    assert [body.occurrence for body in rig.bodies(ReconciledRaise)] == ["X"]
    assert rig.acks()[-1] == Ack(E, E, 2, ours.events[1].hash, reset=False)


async def test_an_event_whose_link_does_not_fit_is_journaled_marked_and_alarmed(rig: Rig) -> None:
    ours, theirs = run_of(E, note("one")), run_of(E, note("two"), note())
    await rig.send(*ours.events, *theirs.events[1:])
    assert rig.bodies(EdgeEvent)[2].marks == (Mark.CHAIN_BROKEN,)
    assert rig.open_rules() == [GatewayRule.EVIDENCE_CONFLICT]
    assert rig.acks()[-1].seq == 3


async def test_what_follows_another_history_that_will_not_come_is_taken_and_the_loss_alarmed(
    rig: Rig,
) -> None:
    ours, theirs = run_of(E, note("one")), run_of(E, note("two"), note())
    await rig.send(*ours.events, theirs.events[2])
    assert len(rig.held()) == 2
    assert rig.acks()[-1].hash == ours.events[1].hash
    await rig.beat(health_of(theirs, acked=ours.events[1].position))
    await rig.send(theirs.events[2])
    assert rig.held() == [(E, 1), (E, 2), (E, 3)]
    assert [(gap.from_seq, gap.to_seq, gap.final) for gap in rig.bodies(GapFound)] == [(1, 2, True)]
    assert rig.open_rules() == [GatewayRule.STREAM_GAP, GatewayRule.EVIDENCE_CONFLICT]


async def test_a_restored_image_is_alarmed_as_a_fork_until_the_next_report(rig: Rig) -> None:
    store = run_of(E, note())
    image = store.image()
    store.add(note())
    await rig.send(*store.events)
    image.start(F)
    await rig.send(*image.events)
    assert rig.open_rules() == [GatewayRule.EPOCH_FORK]
    await rig.send(image.add(report()))
    assert rig.open_rules() == []


async def test_two_agents_with_one_identity_are_alarmed_and_reconciled_only_after_ten_quiet_minutes(
    rig: Rig,
) -> None:
    store = run_of(E, raised("X"))
    clone = run_of(F, store=store.image())
    await rig.send(*clone.events)
    await rig.send(store.add(note()))
    assert GatewayRule.IDENTITY_CONFLICT in rig.open_rules()
    await rig.send(clone.add(report()))
    assert rig.bodies(ReconciledClear) == []
    await rig.pass_time(599_000)
    await rig.send(clone.add(report()))
    assert rig.bodies(ReconciledClear) == []
    await rig.pass_time(2_000)
    assert GatewayRule.IDENTITY_CONFLICT not in rig.open_rules()
    await rig.send(clone.add(report()))
    assert [body.occurrence for body in rig.bodies(ReconciledClear)] == ["X"]
    assert len(rig.held()) == 7


# resets


async def test_an_acked_that_is_not_held_is_reset_and_one_that_is_held_is_not(rig: Rig) -> None:
    store = run_of(E, note(), note())
    await rig.send(*store.events[:2])
    await rig.beat(health_of(store, acked=store.events[1].position))
    assert [ack.reset for ack in rig.acks()] == [False]
    await rig.beat(health_of(store, acked=store.events[2].position))
    assert rig.acks()[-1] == Ack(E, E, 2, store.events[1].hash, reset=True)


async def test_a_retained_health_calls_a_fresh_gateway_to_ask_for_everything(rig: Rig) -> None:
    store = run_of(E, note())
    await rig.put(
        Channel.HEALTH, encode_status(health_of(store, acked=store.events[1].position)), retain=True
    )
    assert rig.acks() == [Ack(E, None, None, None, reset=True)]


async def test_a_health_that_cannot_be_read_is_quarantined(rig: Rig) -> None:
    await rig.put(Channel.HEALTH, b'{"online": "yes"}')
    assert len(rig.bodies(Quarantined)) == 1


# reports


async def test_a_report_raises_what_was_missed_and_clears_what_is_over(rig: Rig) -> None:
    store = run_of(E, raised("X"), report(listed("Y", guard="door-2")))
    await rig.send(*store.events)
    assert [body.occurrence for body in rig.bodies(ReconciledRaise)] == ["Y"]
    assert [body.occurrence for body in rig.bodies(ReconciledClear)] == ["X"]


async def test_a_cleared_occurrence_that_is_listed_goes_on_under_a_new_number_and_ends_by_its_own_clear(
    rig: Rig,
) -> None:
    store = run_of(E, raised("X"), cleared("X"), report(listed("X")), cleared("X"), report(listed("X")))
    await rig.send(*store.events)
    assert [body.occurrence for body in rig.bodies(ReconciledRaise)] == ["X.2", "X.3"]


async def test_a_lost_store_keeps_what_its_successor_cannot_see_yet(rig: Rig) -> None:
    await rig.send(*run_of(E, raised("X"), raised("Y", guard="door-2")).events)
    successor = run_of(F, report(door="u--s"))
    await rig.send(*successor.events)
    assert [body.occurrence for body in rig.bodies(ReconciledClear)] == ["Y"]
    await rig.send(successor.add(report(door="c--g")))
    assert [body.occurrence for body in rig.bodies(ReconciledClear)] == ["Y", "X"]


async def test_a_report_with_a_missing_part_heals_nothing(rig: Rig) -> None:
    store = run_of(E, raised("X"), report(part=1, parts=2), note())
    store.add(report(part=2, parts=2))
    await rig.send(*store.events)
    assert rig.bodies(ReconciledClear) == []


# birth certificates


def agent_model(*machines: str, version: str = "1.0") -> AgentModel:
    words = {"zh": "网关", "en": "Gateway"}
    return AgentModel(AGENT, E, version, words, None, {}, machines, ("plc1",), "c0ffee", "key")


def machine_model(machine: str, epoch: str = E) -> MachineModel:
    words = {"zh": "混砂机", "en": "Mixer"}
    guard = GuardModel(words, "interlocked_door", 2000, ("plc1",), {}, {})
    return MachineModel(machine, words, None, "mixer", 1, {"door-1": guard}, {}, {}, {}, epoch)


async def test_birth_certificates_are_journaled_when_they_change_and_not_otherwise(rig: Rig) -> None:
    for _ in range(2):
        await rig.put(Channel.MODEL, encode_status(agent_model("mixer-18")))
        await rig.put(Channel.MODEL, encode_status(machine_model("mixer-18")), "mixer-18")
        await rig.put(Channel.MODEL, encode_status(machine_model("mixer-18", F)), "mixer-18")
    assert len(rig.bodies(AgentModelled)) == 1
    assert len(rig.bodies(MachineModelled)) == 1
    await rig.put(Channel.MODEL, encode_status(agent_model("mixer-18", version="1.1")))
    assert len(rig.bodies(AgentModelled)) == 2


async def test_a_machine_is_removed_by_an_empty_certificate_or_by_its_agents_list(rig: Rig) -> None:
    await rig.put(Channel.MODEL, encode_status(machine_model("mixer-18")), "mixer-18")
    await rig.put(Channel.MODEL, encode_status(machine_model("mixer-19")), "mixer-19")
    await rig.put(Channel.MODEL, b"", "mixer-18")
    await rig.put(Channel.MODEL, b"", "mixer-18")
    await rig.put(Channel.MODEL, encode_status(agent_model()))
    assert [body.machine for body in rig.bodies(MachineRemoved)] == ["mixer-18", "mixer-19"]


async def test_a_certificate_that_is_wrong_or_somebody_elses_is_quarantined(rig: Rig) -> None:
    await rig.put(Channel.MODEL, encode_status(replace(agent_model(), agent="gw-02")))
    await rig.put(Channel.MODEL, encode_status(machine_model("mixer-18")), "mixer-19")
    await rig.put(Channel.MODEL, b'{"agent": 1}')
    await rig.put(
        Channel.MODEL, encode_status(agent_model()).replace(b'"machines":[]', b'"machines":[],"x":1.5')
    )
    assert len(rig.bodies(Quarantined)) == 4
    assert rig.bodies(AgentModelled) == []


# time


async def test_events_of_a_boot_without_a_clock_get_their_time_from_a_later_one_of_the_batch(
    rig: Rig,
) -> None:
    store = Store(clock=ClockState.UNSYNCED)
    store.start(E)
    store.add(note())
    store.clock = ClockState.SYNCED
    last = store.add(note())
    await rig.send(*store.events)
    times = [body.occurred_at for body in rig.bodies(EdgeEvent)]
    assert times == [*(event.at for event in store.events[:2]), last.at]
    store.clock = ClockState.UNSYNCED
    late = store.add(note())
    await rig.send(late)
    assert rig.bodies(EdgeEvent)[-1].occurred_at == late.at, "and later ones from the anchor that is kept"


@pytest.mark.parametrize("is_restarted", [False, True], ids=["", "over a restart of the agent"])
async def test_rows_without_a_time_get_it_from_an_event_hours_later(rig: Rig, *, is_restarted: bool) -> None:
    """The machine booted without network time: what it saw is dated as soon as its clock is set."""
    store = Store(clock=ClockState.UNSYNCED)
    store.start(E)
    told = [store.add(raised("over")), store.add(cleared("over")), store.add(raised("open"))]
    await rig.send(*store.events)
    rows = rig.rows()
    assert {row.occurred_at for row in rows.values()} == {iso_utc(rig.clock.now_ms)}, (
        "the time of receipt so far"
    )
    await rig.pass_time(5 * 3_600_000)
    for _ in range(50):
        store.add(note())
    store.clock = ClockState.SYNCED
    later = store.start(F) if is_restarted else store.add(note())
    await rig.send(*store.events[4:])
    assert later.boot == told[0].boot
    rows = rig.rows()
    assert (rows["over"].occurred_at, rows["over"].raised_at) == (told[0].at, told[0].at)
    assert rows["over"].cleared_at == told[1].at
    assert (rows["open"].occurred_at, rows["open"].cleared_at) == (told[2].at, None)
    store.clock = ClockState.UNSYNCED
    end = store.add(cleared("open"))
    await rig.send(end)
    assert (rig.rows()["open"].occurred_at, rig.rows()["open"].cleared_at) == (told[2].at, end.at)


async def test_an_agent_without_a_clock_tells_late_news_from_fresh_by_its_beats(rig: Rig) -> None:
    """Its backlog has the time of receipt, like what happens now; its own clock, right or wrong, knows which is which."""
    store = Store(clock=ClockState.UNSYNCED)
    store.start(E)
    store.add(raised("old"))
    store.clock_ms += 3_600_000
    store.add(raised("fresh", guard="door-2"))
    await rig.beat(health_of(store, at=store.events[-1].at))
    await rig.send(*store.events)
    assert [body.marks for body in rig.bodies(EdgeEvent)] == [(), (Mark.LATE,), ()]
    assert rig.rows()["old"].occurred_at == rig.rows()["fresh"].occurred_at


@pytest.mark.parametrize("at", [None, "soon"])
async def test_a_beat_that_does_not_say_the_time_makes_nothing_late(rig: Rig, at: str | None) -> None:
    store = run_of(E, store=Store(clock=ClockState.UNSYNCED))
    store.add(raised("old"))
    await rig.beat(health_of(store, at=at))
    await rig.send(*store.events)
    assert [body.marks for body in rig.bodies(EdgeEvent)] == [(), ()]


async def test_another_boot_gives_no_time_to_the_rows_of_this_one(rig: Rig) -> None:
    store = Store(clock=ClockState.UNSYNCED)
    store.start(E)
    store.add(raised("old"))
    await rig.send(*store.events)
    received_at = rig.rows()["old"].occurred_at
    await rig.pass_time(60_000)
    store.boot, store.clock = "boot-2", ClockState.SYNCED
    store.start(F)
    await rig.send(store.events[-1])
    assert rig.rows()["old"].occurred_at == received_at


async def test_what_is_dated_late_survives_a_restart_of_the_gateway(tmp_path: Path) -> None:
    """The book forgets nothing of it: not in its snapshot, and not when the journal is folded anew."""
    store = Store(clock=ClockState.UNSYNCED)
    store.start(E)
    told = store.add(raised("open"))
    where = f"sqlite:///{tmp_path}/g.db"
    for is_first in (True, False):
        if not is_first:
            store.clock = ClockState.SYNCED
            store.add(note())
        clock, findings = WoundClock(), OpenFindings()
        folds: dict[str, Fold] = {"findings": findings, "book": AlarmBook()}
        rig = Rig(await SqlJournal.open(where, clock, folds), clock, findings)
        await rig.send(*store.events)
        rows = rig.rows()
        await rig.journal.close()
    assert rows["open"].occurred_at == told.at


async def test_findings_say_when_they_were_over(rig: Rig) -> None:
    await rig.put(Channel.EVENTS, b"x", retain=False)
    (found,) = rig.bodies(FindingRaised)
    assert found.occurrence == "gateway-2"
    await rig.pass_time(3_600_000)
    assert [body.occurrence for body in rig.bodies(FindingCleared)] == ["gateway-2"]
