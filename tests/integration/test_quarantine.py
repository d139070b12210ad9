"""What cannot take its place: gaps are seen, poison is kept raw and blocks nothing, and no raise in it goes untold.

A real gateway, a real broker and a mailbox; what comes is published by whoever can reach the broker.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from edge_agent.wire.chain import canonical, link_hash
from edge_agent.wire.codec import DECODE_MAX_BYTES
from edge_agent.wire.event import Event, Json
from gateway.domain.journal import EdgeEvent
from tests.integration.corner_rig import wait_for
from tests.integration.gateway_process import GatewayProcess
from tests.integration.mailbox import mailbox, publish, tell
from tests.scripted_agent import Store, note, raised, ulid
from tests.servers import Mosquitto
from tests.whole_plant import Mailbox

pytestmark = pytest.mark.integration

E = ulid(1)
MIB = 1024 * 1024


@dataclass(frozen=True)
class Rig:
    """A gateway that tells of everything urgent."""

    broker: Mosquitto
    gateway: GatewayProcess
    box: Mailbox

    def publish(self, store: Store, *payloads: bytes) -> None:
        """Publish these where the agent of this store publishes its events."""
        publish(self.broker.port, [(events_topic(store), payload) for payload in payloads])

    def send(self, store: Store, *events: Event) -> None:
        """Publish these, and wait until the journal holds the last of them."""
        self.publish(store, *(event.payload for event in events))
        last = events[-1].hash
        wait_for("the event in the journal", lambda: last in {event.hash for event in self.journaled(store)})

    def journaled(self, store: Store) -> list[Event]:
        """The agent's events in the journal, in order."""
        events = [body.event for body in self.gateway.bodies(EdgeEvent)]
        return [event for event in events if event.agent == store.agent]

    def items(self, path: str) -> list[dict[str, Json]]:
        """A list of its REST interface."""
        items = self.gateway.get(f"/api/v1/{path}")["items"]
        assert isinstance(items, list)
        return [item for item in items if isinstance(item, dict)]

    def violations(self, store: Store, rule: str) -> list[dict[str, Json]]:
        """The violations of a rule that concern the agent, newest first."""
        return [item for item in self.items(f"violations?rule={rule}") if item["agent"] == store.agent]

    def wait_for(self, store: Store, rule: str, state: str = "active") -> dict[str, Json]:
        """The agent's newest violation of a rule, once it is in this state."""
        wait_for(
            f"{rule} {state}",
            lambda: bool(found := self.violations(store, rule)) and found[0]["state"] == state,
        )
        return self.violations(store, rule)[0]

    def gaps(self, store: Store) -> list[Json]:
        """The gaps that are shown with the agent."""
        (agent,) = [item for item in self.items("agents") if item["agent"] == store.agent]
        gaps = agent["gaps"]
        assert isinstance(gaps, list)
        return gaps


def events_topic(store: Store) -> str:
    return f"guardwatch/v1/{store.site}/{store.agent}/events"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for all tests: each has an agent of its own."""
    folder = tmp_path_factory.mktemp("quarantine")
    with ExitStack() as exits:
        box = exits.enter_context(mailbox())
        conf = f"max_packet_size {4 * MIB}"
        broker = exits.enter_context(Mosquitto(folder / "broker", extra_conf=conf))
        gateway = exits.enter_context(GatewayProcess(folder / "gateway", broker.port, more=tell(box)))
        yield Rig(broker, gateway, box)


def started(agent: str) -> Store:
    """A store in which a run has begun."""
    store = Store(agent=agent)
    store.start(E)
    return store


def reseal(event: Event, **changes: Json) -> bytes:
    """An event with other content, and the hash that fits it."""
    document: dict[str, Json] = {**json.loads(event.payload), **changes}
    document.pop("hash")
    return canonical({**document, "hash": link_hash(event.prev, document)})


def test_a_gap_is_shown_with_its_agent_and_alarmed_and_is_over_when_it_fills(rig: Rig) -> None:
    store = started("gap")
    for _ in range(4):
        store.add(note())
    one, two, three, four, five = store.events
    rig.send(store, one)
    rig.publish(store, five.payload)
    rig.wait_for(store, "stream_gap")
    (gap,) = rig.gaps(store)
    assert isinstance(gap, dict)
    assert (gap["from_seq"], gap["to_seq"], gap["filled_at"], gap["final_at"]) == (2, 4, None, None)
    assert rig.gateway.get("/readyz")["status"] == "degraded"
    rig.send(store, two, three, four, five)
    rig.wait_for(store, "stream_gap", "cleared")
    assert [event.seq for event in rig.journaled(store)] == [1, 2, 3, 4, 5]


def test_a_raise_in_an_event_that_conflicts_is_alarmed_and_told(rig: Rig) -> None:
    store = started("conflict")
    image = store.image()
    rig.send(store, store.events[0], store.add(note()))
    image.add(raised("in-a-conflict"))
    rig.publish(store, image.events[-1].payload)
    violation = rig.wait_for(store, "guard_open_motion")
    assert (violation["occurrence"], violation["priority"]) == ("in-a-conflict", "P1")
    rig.wait_for(store, "evidence_conflict")
    wait_for("the raise told", lambda: rig.box.events("in-a-conflict") == ["raised"])
    (kept,) = [item for item in rig.items("quarantine") if item["topic"] == events_topic(store)]
    assert base64.b64decode(str(kept["payload"])) == image.events[-1].payload
    assert "is held with the hash" in str(kept["reason"])
    rig.send(store, store.add(note()))
    assert [event.seq for event in rig.journaled(store)] == [1, 2, 3]


def test_a_raise_that_cannot_be_read_is_alarmed_as_the_worst_and_told(rig: Rig) -> None:
    store = started("unreadable")
    rig.send(store, store.events[0])
    rig.publish(store, reseal(store.add(raised("unreadable")), priority="P9"))
    finding = rig.wait_for(store, "quarantine")
    assert (finding["priority"], finding["origin"]) == ("P1", "gateway")
    wait_for("it told", lambda: rig.box.events(str(finding["occurrence"])) == ["raised"])
    assert [event.seq for event in rig.journaled(store)] == [1, 2], "it has its place, and blocks nothing"


def poison(store: Store) -> Mapping[str, bytes]:
    """What a broker may carry, by name. JSONTestSuite's classes of must-reject documents, sizes, and forged envelopes."""
    good = store.image().add(note())
    document = good.payload
    return {
        "nothing": b"",
        "no UTF-8": b'{"v":1,"site":"\xff"}',
        "UTF-16": document.decode().encode("utf-16"),
        "overlong UTF-8": b'{"a":"\xc0\xaf"}',
        "lone surrogate": b'{"a":"\\ud800"}',
        "byte order mark": b"\xef\xbb\xbf" + document,
        "no JSON": b"event",
        "cut off": document[:-10],
        "more behind it": document + b"{}",
        "trailing comma": document[:-1] + b",}",
        "single quotes": document.replace(b'"', b"'"),
        "control character": b'{"a":"\x00"}',
        "NaN": document.replace(b'"n":1', b'"n":NaN'),
        "infinity": document.replace(b'"n":1', b'"n":-Infinity'),
        "a float": document.replace(b'"n":1', b'"n":1.5'),
        "leading zero": document.replace(b'"n":1', b'"n":01'),
        "deep arrays": b"[" * 50_000,
        "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        "a list": b"[" + document + b"]",
        "null": b"null",
        "duplicate keys": document[:-1] + b',"seq":7}',
        "a number of 40 000 digits": b'{"v":' + b"9" * 40_000 + b"}",
        "64 KiB and one": b"x" * (DECODE_MAX_BYTES + 1),
        "1 MiB of JSON": b'{"a":"' + b"x" * MIB + b'"}',
        "another content": document.replace(b'"n":1', b'"n":2'),
        "another version": reseal(good, v=2),
        "seq 2^63": reseal(good, seq=2**63),
        "seq 0": reseal(good, seq=0),
        "seq as text": reseal(good, seq="2"),
        "seq true": reseal(good, seq=True),
        "no agent": reseal(good, agent=None),
        "another agent": reseal(good, agent="somebody-else"),
        "another site": reseal(good, site="somewhere-else"),
        "an epoch that is none": reseal(good, epoch="../../etc"),
        "a hash that is none": document.replace(good.hash.encode(), b"z" * 64),
        "a time that is none": reseal(good, at="yesterday"),
    }


def test_poison_is_kept_raw_with_a_reason_and_the_next_good_event_is_journaled(rig: Rig) -> None:
    store = started("poison")
    rig.send(store, store.events[0])
    corpus = poison(store)
    for payload in corpus.values():
        rig.publish(store, payload)
        rig.send(store, store.add(note()))
    kept = {
        base64.b64decode(str(item["payload"])): item["reason"]
        for item in rig.items("quarantine?limit=1000")
        if item["topic"] == events_topic(store)
    }
    assert {name for name, payload in corpus.items() if not kept.get(payload[:DECODE_MAX_BYTES])} == set()
    assert [event.seq for event in rig.journaled(store)] == list(range(1, len(corpus) + 2))
    finding = rig.wait_for(store, "quarantine")
    assert finding["priority"] == "P3"


def test_what_an_agent_sent_before_is_nothing_new_in_whatever_order_it_comes_again(rig: Rig) -> None:
    store = started("replayed")
    for _ in range(5):
        store.add(note())
    store.start(ulid(2))
    rig.send(store, *store.events)
    old = [event.payload for event in store.events[:6]]
    rig.publish(store, *old, *reversed(old))
    rig.send(store, store.add(note()))
    assert [event.hash for event in rig.journaled(store)] == [event.hash for event in store.events]
    for rule in ("stream_gap", "identity_conflict", "evidence_conflict", "quarantine"):
        assert rig.violations(store, rule) == []
