"""The gateway's side of the broker, against a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.broker.access import BrokerAccess
from edge_agent.wire.codec import DECODE_MAX_BYTES, DecodeError, decode
from edge_agent.wire.topics import Channel, topic
from gateway.adapters.intake_paho import LIMITS, PahoIntake
from gateway.ports import Message
from tests.certificates import Authority
from tests.scripted_agent import AGENT, SITE
from tests.servers import Mosquitto, free_port

pytestmark = pytest.mark.integration

EVENTS = topic(SITE, AGENT, Channel.EVENTS)
ACK = topic(SITE, AGENT, Channel.ACK)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something to become so, looking often; half a minute at most."""
    for _ in range(1500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came about")


@pytest_asyncio.fixture
async def intake(mosquitto: Mosquitto) -> AsyncIterator[PahoIntake]:
    opened = PahoIntake(BrokerAccess("127.0.0.1", mosquitto.port, "gateway"))
    opened.open()
    await until(lambda: opened.problem is None)
    yield opened
    await opened.close()


async def test_certificates_that_are_missing_are_said_and_looked_for_again(tmp_path: Path) -> None:
    opened = PahoIntake(BrokerAccess("127.0.0.1", 1, "gateway", is_tls=True, ca_file=tmp_path / "ca.pem"))
    opened.open()
    await until(lambda: "No such file" in str(opened.problem))
    Authority(tmp_path, "ca").ca_file.rename(tmp_path / "ca.pem")
    await until(lambda: "No such file" not in str(opened.problem))
    await opened.close()


def talk(port: int, name: str = "agent") -> Client:
    """Another client of the broker, connected."""
    client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


def hang_up(client: Client) -> None:
    client.disconnect()
    client.loop_stop()


async def take(intake: PahoIntake, count: int) -> list[Message]:
    """The next `count` messages, PUBACKed."""
    messages: list[Message] = []
    while len(messages) < count:
        batch = await asyncio.wait_for(intake.batch(), 30)
        intake.done(batch)
        messages += batch
    return messages


async def test_what_agents_publish_arrives_in_order_and_states_and_acks_do_not(
    intake: PahoIntake, mosquitto: Mosquitto
) -> None:
    client = talk(mosquitto.port)
    client.publish(topic(SITE, AGENT, Channel.STATE, "mixer-18", "door-1"), b"state", 1, retain=True)
    client.publish(ACK, b"ack", 1, retain=True)
    for n in range(1200):
        client.publish(EVENTS, str(n).encode(), 1)
    messages = await take(intake, 1200)
    assert [message.payload for message in messages] == [str(n).encode() for n in range(1200)]
    hang_up(client)


async def demand_all(intake: PahoIntake, port: int) -> None:
    """Small and large messages, more than one read holds, arrive whole and in order; `port` is a plain listener's."""
    await until(lambda: intake.problem is None)
    client = talk(port)
    sent = [str(n).encode() * (n % 10 * 100) for n in range(300)]
    for payload in sent:
        client.publish(EVENTS, payload, 1)
    assert [message.payload for message in await take(intake, len(sent))] == sent
    intake.publish_retained(ACK, b"ack")
    heard: list[bytes] = []
    client.on_message = lambda _client, _data, message: heard.append(bytes(message.payload))
    client.subscribe(ACK, 1)
    await until(lambda: heard == [b"ack"])
    hang_up(client)


async def test_websockets_carry_the_same(tmp_path: Path) -> None:
    port = free_port()
    # its websockets library cannot listen on an address, but can on an interface
    extra = f"listener {port}\nbind_interface lo\nprotocol websockets"
    with Mosquitto(tmp_path / "broker", extra_conf=extra) as broker:
        intake = PahoIntake(BrokerAccess("127.0.0.1", port, "gateway", web_path="/mqtt"))
        intake.open()
        await demand_all(intake, broker.port)
        await intake.close()


async def test_tls_carries_the_same(tmp_path: Path) -> None:
    authority, port = Authority(tmp_path), free_port()
    signed = authority.sign("127.0.0.1")
    extra = f"listener {port} 127.0.0.1\ncertfile {signed.cert_file}\nkeyfile {signed.key_file}"
    with Mosquitto(tmp_path / "broker", extra_conf=extra) as broker:
        access = BrokerAccess("127.0.0.1", port, "gateway", is_tls=True, ca_file=authority.ca_file)
        intake = PahoIntake(access)
        intake.open()
        await demand_all(intake, broker.port)
        await intake.close()


async def test_what_the_broker_had_kept_says_so(mosquitto: Mosquitto) -> None:
    client = talk(mosquitto.port)
    client.publish(topic(SITE, AGENT, Channel.HEALTH), b"old", 1, retain=True).wait_for_publish(10)
    late = PahoIntake(BrokerAccess("127.0.0.1", mosquitto.port, "gateway"))
    late.open()
    (old,) = await take(late, 1)
    client.publish(topic(SITE, AGENT, Channel.HEALTH), b"new", 1, retain=True)
    (new,) = await take(late, 1)
    assert [(message.payload, message.retain) for message in (old, new)] == [(b"old", True), (b"new", False)]
    await late.close()
    hang_up(client)


async def test_acks_are_published_retained(intake: PahoIntake, mosquitto: Mosquitto) -> None:
    heard: list[tuple[bytes, bool]] = []

    def hear(client: Client, userdata: object, message: MQTTMessage) -> None:
        heard.append((bytes(message.payload), message.retain))

    intake.publish_retained(ACK, b"one")
    intake.publish_retained(ACK, b"two")
    await asyncio.sleep(0.5)  # both are at the broker, whoever subscribes now gets the second
    client = talk(mosquitto.port)
    client.on_message = hear
    client.subscribe(ACK, 1)
    await until(lambda: bool(heard))
    assert heard == [(b"two", True)]
    hang_up(client)


async def test_an_inbox_that_nobody_empties_holds_the_broker_back_and_loses_nothing(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.intake_paho.INBOX_MAX", 100)
    small = PahoIntake(BrokerAccess("127.0.0.1", mosquitto.port, "gateway"))
    small.open()
    await until(lambda: small.problem is None)
    client = talk(mosquitto.port)
    for n in range(500):
        client.publish(EVENTS, str(n).encode(), 1)
    await until(lambda: len(small._inbox) == 100)
    await asyncio.sleep(0.5)
    assert len(small._inbox) == 100
    messages = await take(small, 500)
    assert [message.payload for message in messages] == [str(n).encode() for n in range(500)]
    await small.close()
    hang_up(client)


async def hold_up(intake: PahoIntake, port: int, held: int, held_s: float) -> None:
    """Let 500 messages come that nobody takes, well past the keepalive; the same connection then brings them all."""
    count = 500
    intake.open()
    await until(lambda: intake.problem is None)
    client = talk(port)
    for n in range(count):
        client.publish(EVENTS, str(n).encode(), 1)
    await until(lambda: len(intake._inbox) == held)
    await asyncio.sleep(held_s)
    assert (intake.problem, intake._attempts, len(intake._inbox)) == (None, 1, held)
    messages = await take(intake, count)
    assert [message.payload for message in messages] == [str(n).encode() for n in range(count)]
    assert intake._attempts == 1
    await intake.close()
    hang_up(client)


async def test_while_nobody_takes_messages_the_broker_sends_no_more_and_is_pinged_and_heard(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.intake_paho.KEEPALIVE_S", 1)
    monkeypatch.setattr("gateway.adapters.intake_paho.RECEIVE_MAX", 100)
    await hold_up(PahoIntake(BrokerAccess("127.0.0.1", mosquitto.port, "gateway")), mosquitto.port, 100, 4)


async def test_a_full_inbox_keeps_the_connection_though_nothing_is_read(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.intake_paho.KEEPALIVE_S", 2)
    monkeypatch.setattr("gateway.adapters.intake_paho.INBOX_MAX", 50)
    await hold_up(PahoIntake(BrokerAccess("127.0.0.1", mosquitto.port, "gateway")), mosquitto.port, 50, 8)


async def test_of_a_message_that_nobody_will_decode_no_more_is_held_than_is_kept(tmp_path: Path) -> None:
    """Two thousand of the largest packets would be four gigabytes."""
    with Mosquitto(tmp_path / "broker", extra_conf="max_packet_size 200000000") as broker:
        intake = PahoIntake(BrokerAccess("127.0.0.1", broker.port, "gateway"))
        intake.open()
        await until(lambda: intake.problem is None)
        client = talk(broker.port)
        for size in (DECODE_MAX_BYTES, DECODE_MAX_BYTES + 1, 2**20):
            client.publish(EVENTS, b"x" * size, 1)
        messages = await take(intake, 3)
        assert [len(message.payload) - DECODE_MAX_BYTES for message in messages] == [0, 1, 1]
        assert decode(messages[2].payload) == DecodeError(f"more bytes than the limit of {DECODE_MAX_BYTES}")
        await intake.close()
        hang_up(client)


async def test_a_message_beyond_all_limits_does_not_even_reach_the_gateway(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", extra_conf="max_packet_size 200000000") as broker:
        intake = PahoIntake(BrokerAccess("127.0.0.1", broker.port, "gateway"))
        intake.open()
        await until(lambda: intake.problem is None)
        client = talk(broker.port)
        sent = [b"before", b"x" * 100 * 2**20, b"between", b"x" * LIMITS.packet_bytes, b"after"]
        for payload in sent:
            client.publish(EVENTS, payload, 1)
        assert [message.payload for message in await take(intake, 3)] == [b"before", b"between", b"after"]
        assert intake._attempts == 1
        await intake.close()
        hang_up(client)


async def test_it_is_back_after_the_broker_is_and_says_what_is_wrong_meanwhile(
    intake: PahoIntake, mosquitto: Mosquitto
) -> None:
    client = talk(mosquitto.port)
    client.publish(EVENTS, b"before", 1)
    batch = await asyncio.wait_for(intake.batch(), 30)
    hang_up(client)
    mosquitto.kill()
    await until(lambda: intake.problem is not None)
    mosquitto.start()
    await until(lambda: intake.problem is None)
    intake.done(batch)  # of a connection that is no more: must not acknowledge somebody else's message
    again = talk(mosquitto.port)
    again.publish(EVENTS, b"after", 1)
    (message,) = await take(intake, 1)
    assert message.payload == b"after"
    hang_up(again)


async def test_without_a_broker_it_says_so_and_closes_at_once() -> None:
    port = free_port()
    nowhere = PahoIntake(BrokerAccess("127.0.0.1", port, "gateway"))
    nowhere.open()
    await until(lambda: f"cannot connect to 127.0.0.1:{port}" in (nowhere.problem or ""))
    nowhere.publish_retained(ACK, b"dropped")
    await asyncio.wait_for(nowhere.close(), 5)


async def test_a_broker_that_refuses_us_is_named(mosquitto: Mosquitto) -> None:
    passwords = mosquitto.folder / "passwords"
    passwords.touch(mode=0o600)
    with Mosquitto(mosquitto.folder / "guarded", password_file=passwords) as guarded:
        refused = PahoIntake(BrokerAccess("127.0.0.1", guarded.port, "gateway", username="x", password="y"))
        refused.open()
        await until(lambda: "refuses us" in (refused.problem or ""))
        await refused.close()
