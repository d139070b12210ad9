"""The broker connection against a real mosquitto: reports in order, refusals told apart, no second outbox in RAM."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.adapters import uplink_paho
from edge_agent.adapters.publish_packet import Puback
from edge_agent.adapters.uplink_paho import PahoUplink
from edge_agent.broker.access import BrokerAccess
from edge_agent.ports import AckArrived, Answered, LinkDown, LinkUp, Publication, UplinkReport
from tests.certificates import Authority
from tests.servers import Mosquitto, free_port

pytestmark = pytest.mark.integration

PREFIX = "guardwatch/v1/site/gw"
WILL = Publication(f"{PREFIX}/health", b"gone", retained=True)
DEADLINE_S = 40.0


def event(n: int) -> Publication:
    return Publication(f"{PREFIX}/events", f"event {n}".encode(), retained=False, place=n)


async def publish_a_window(uplink: PahoUplink, said: Listener) -> None:
    """Megabytes at once, every one of them answered, in order: more than a socket, a record or a frame takes."""
    sent = [replace(event(n), payload=b"%d" % n * 10_000) for n in range(1, 257)]
    for item in sent:
        uplink.publish(item)
    await said.wait(lambda: len(said.of(Answered)) == len(sent))
    assert [answer.publication for answer in said.of(Answered) if isinstance(answer, Answered)] == sent


class Listener:
    """What an uplink reports, in order."""

    def __init__(self) -> None:
        self.reports: list[UplinkReport] = []

    def __call__(self, report: UplinkReport) -> None:
        self.reports.append(report)

    def of(self, kind: type[UplinkReport]) -> list[UplinkReport]:
        return [report for report in self.reports if isinstance(report, kind)]

    async def wait(self, look: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not look():  # noqa: ASYNC110 — reports wake nobody here
                await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(
    port: int, ack_topic: str | None = f"{PREFIX}/ack", **more: object
) -> AsyncIterator[tuple[PahoUplink, Listener]]:
    values: dict[str, object] = {"host": "127.0.0.1", "port": port, "client_id": "gw"}
    uplink = PahoUplink(BrokerAccess(**(values | more)), ack_topic)  # type: ignore[arg-type]
    listener = Listener()
    uplink.open(WILL, listener)
    try:
        yield uplink, listener
    finally:
        await uplink.close()


@asynccontextmanager
async def serving(*says: bytes) -> AsyncIterator[int]:
    """The port of a peer that says this, each piece after something was said to it, and then nothing more."""
    over = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for words in says:
            await reader.read(65_536)
            writer.write(words)
        await over.wait()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        over.set()
        server.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def watching(port: int, *topics: str) -> AsyncIterator[list[tuple[str, bytes, bool]]]:
    """A bystander: what arrives on these topics, with the retain flag."""
    heard: list[tuple[str, bytes, bool]] = []
    subscribed = asyncio.Event()
    loop = asyncio.get_running_loop()
    client = Client(CallbackAPIVersion.VERSION2, client_id="bystander", protocol=MQTTProtocolVersion.MQTTv5)

    def on_message(_: Client, __: object, message: MQTTMessage) -> None:
        heard.append((message.topic, bytes(message.payload), message.retain))

    def on_subscribe(
        _: Client, __: object, mid: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        loop.call_soon_threadsafe(subscribed.set)

    client.on_message = on_message
    client.on_subscribe = on_subscribe
    client.connect("127.0.0.1", port)
    client.subscribe([(topic, 1) for topic in topics])
    client.loop_start()
    await subscribed.wait()
    try:
        yield heard
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


async def test_says_the_receive_maximum_of_the_broker(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m") as broker:
        async with opened(broker.port) as (_, said):
            await said.wait(lambda: said.reports)
            assert said.reports[0] == LinkUp(1000)


async def test_a_broker_that_sets_no_limit_is_given_one() -> None:
    """By a slow line all that it allows, 65 535 publishes of 48 KiB, would gather in memory."""
    async with (
        serving(b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x01") as port,
        opened(port) as (_, said),
    ):
        await said.wait(lambda: said.reports)
        assert said.reports[0] == LinkUp(1000)


async def test_every_publish_is_answered_and_arrives_in_order(mosquitto: Mosquitto) -> None:
    async with (
        watching(mosquitto.port, f"{PREFIX}/events") as heard,
        opened(mosquitto.port) as (uplink, said),
    ):
        await said.wait(lambda: said.of(LinkUp))
        for n in range(1, 301):
            uplink.publish(event(n))
        await said.wait(lambda: len(said.of(Answered)) == 300)
        await said.wait(lambda: len(heard) == 300)
        assert said.of(Answered) == [Answered(event(n), None, is_heard=True) for n in range(1, 301)]
        assert [payload for _, payload, _ in heard] == [f"event {n}".encode() for n in range(1, 301)]


async def test_message_ids_begin_again_and_pass_over_those_that_wait_for_an_answer(
    mosquitto: Mosquitto,
) -> None:
    async with opened(mosquitto.port) as (uplink, said):
        await said.wait(lambda: said.of(LinkUp))
        attempt = uplink._attempt
        assert attempt is not None
        attempt._mid = 65_530
        unanswered = event(0)
        attempt._in_flight[3] = unanswered
        for n in range(1, 11):
            uplink.publish(event(n))
        assert list(attempt._in_flight) == [3, 65_531, 65_532, 65_533, 65_534, 65_535, 1, 2, 4, 5, 6]
        await said.wait(lambda: len(said.of(Answered)) == 10)
        assert attempt._in_flight == {3: unanswered}


async def test_a_broker_that_answers_pings_and_no_publish_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It hangs where it matters: a connection that is alive and takes nothing helps nobody."""
    monkeypatch.setattr(uplink_paho, "ANSWER_TIMEOUT_S", 0.5)
    async with (
        serving(b"\x20\x03\x00\x00\x00", b"\xd0\x00" * 1000) as port,
        opened(port, ack_topic=None) as (uplink, said),
    ):
        await said.wait(lambda: said.of(LinkUp))
        uplink.publish(event(1))
        await said.wait(lambda: said.of(LinkDown))
        assert said.of(LinkDown) == [LinkDown("no PUBACK")]
        assert said.of(Answered) == []


async def test_a_line_that_is_slow_is_kept_while_it_carries_and_given_up_when_it_carries_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large page on a slow line was begun anew every fifteen seconds, for ever."""
    monkeypatch.setattr(uplink_paho, "ANSWER_TIMEOUT_S", 0.6)
    monkeypatch.setattr(uplink_paho, "LOOK_S", 0.05)
    page, heard, over = b"x" * 4_000_000, bytearray(), asyncio.Event()
    carried: list[float] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65_536))
        writer.write(b"\x20\x03\x00\x00\x00")
        while len(heard) < len(page) * 3 // 4:
            await asyncio.sleep(0.02)
            heard.extend(await reader.read(40_000))
        carried.append(asyncio.get_running_loop().time())
        await over.wait()
        writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0, limit=40_000)
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    async with server, opened(server.sockets[0].getsockname()[1], ack_topic=None) as (uplink, said):
        await said.wait(lambda: said.of(LinkUp))
        uplink.publish(replace(event(1), payload=page))
        begun = asyncio.get_running_loop().time()
        await said.wait(lambda: said.of(LinkDown))
        assert said.of(LinkDown) == [LinkDown("no PUBACK")]
        assert carried
        assert carried[0] - begun > 2 * uplink_paho.ANSWER_TIMEOUT_S
        over.set()


async def test_a_broker_that_answers_publishes_is_kept_though_its_answer_to_a_ping_waits_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplink_paho, "KEEPALIVE_S", 1)
    monkeypatch.setattr(uplink_paho, "BEAT_S", 0.1)
    answers = [b"\x40\x02" + mid.to_bytes(2, "big") for mid in range(1, 16)]
    async with (
        serving(b"\x20\x03\x00\x00\x00", *answers) as port,
        opened(port, ack_topic=None) as (uplink, said),
    ):
        await said.wait(lambda: said.of(LinkUp))
        for n in range(1, 13):
            uplink.publish(event(n))
            await said.wait(lambda n=n: len(said.of(Answered)) == n)  # type: ignore[misc]
            await asyncio.sleep(0.25)
        assert not said.of(LinkDown)


async def test_a_refusal_that_mqtt_does_not_know_is_a_refusal(mosquitto: Mosquitto) -> None:
    async with opened(mosquitto.port) as (uplink, said):
        await said.wait(lambda: said.of(LinkUp))
        attempt = uplink._attempt
        assert attempt is not None
        attempt._in_flight[7] = event(1)
        attempt._answered(Puback(7, 0xEE))
        assert said.of(Answered) == [Answered(event(1), "reason code 0xee", is_heard=False)]


async def test_what_is_no_mqtt_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(b"\x20\x03\x00\x00\x00", b"\xff" * 8) as port, opened(port) as (_, said):
        await said.wait(lambda: said.of(LinkDown))
        (down,) = said.of(LinkDown)[:1]
        assert isinstance(down, LinkDown)
        assert "breaks the protocol" in down.reason


async def test_a_message_that_nobody_gets_is_taken_and_not_heard(mosquitto: Mosquitto) -> None:
    async with opened(mosquitto.port) as (uplink, said):
        await said.wait(lambda: said.of(LinkUp))
        uplink.publish(event(1))
        await said.wait(lambda: said.of(Answered))
        assert said.of(Answered) == [Answered(event(1), None, is_heard=False)]


async def test_hears_its_retained_and_live_acks_and_nothing_else(mosquitto: Mosquitto) -> None:
    client = Client(CallbackAPIVersion.VERSION2, client_id="gateway", protocol=MQTTProtocolVersion.MQTTv5)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    client.publish(f"{PREFIX}/ack", b"retained", qos=1, retain=True).wait_for_publish(DEADLINE_S)
    client.publish("guardwatch/v1/site/other/ack", b"not ours", qos=1, retain=True).wait_for_publish(
        DEADLINE_S
    )
    async with opened(mosquitto.port) as (_, said):
        await said.wait(lambda: said.of(AckArrived))
        client.publish(f"{PREFIX}/ack", b"live", qos=1)
        await said.wait(lambda: len(said.of(AckArrived)) == 2)
        assert said.of(AckArrived) == [AckArrived(b"retained"), AckArrived(b"live")]
    client.disconnect()
    await asyncio.to_thread(client.loop_stop)


async def test_a_publish_while_the_link_is_down_is_dropped_not_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paho would keep it in RAM and send it after the reconnect: an outbox that no store knows."""
    monkeypatch.setattr(uplink_paho, "RECONNECT_FIRST_S", 0.05)
    with Mosquitto(tmp_path / "m") as broker:
        async with opened(broker.port) as (uplink, said):
            await said.wait(lambda: said.of(LinkUp))
            await asyncio.to_thread(broker.kill)
            await said.wait(lambda: said.of(LinkDown))
            uplink.publish(event(1))
            await asyncio.to_thread(broker.start)
            async with watching(broker.port, f"{PREFIX}/events") as heard:
                await said.wait(lambda: len(said.of(LinkUp)) == 2)
                uplink.publish(event(2))
                await said.wait(lambda: heard)
            assert [payload for _, payload, _ in heard] == [b"event 2"]


async def test_each_up_is_followed_by_one_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink_paho, "RECONNECT_FIRST_S", 0.05)
    with Mosquitto(tmp_path / "m") as broker:
        async with opened(broker.port) as (_, said):
            for ups in (1, 2, 3):
                await said.wait(lambda ups=ups: len(said.of(LinkUp)) == ups)  # type: ignore[misc]
                await asyncio.to_thread(broker.kill)
                await said.wait(lambda: isinstance(said.reports[-1], LinkDown))
                await asyncio.to_thread(broker.start)
            after_up = [
                said.reports[n + 1]
                for n, report in enumerate(said.reports[:-1])
                if isinstance(report, LinkUp)
            ]
            assert all(isinstance(report, LinkDown) for report in after_up)


async def test_the_last_will_speaks_for_a_lost_agent_and_not_for_one_that_leaves(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m") as broker:
        async with watching(broker.port, WILL.topic) as heard:
            async with opened(broker.port) as (uplink, said):
                await said.wait(lambda: said.of(LinkUp))
                assert uplink._attempt is not None
                assert uplink._attempt._wire is not None
                uplink._attempt._wire.close()
                await said.wait(lambda: heard)
            assert [payload for _, payload, _ in heard] == [b"gone"]
            async with opened(broker.port) as (_, said):
                await said.wait(lambda: said.of(LinkUp))
            await asyncio.sleep(0)
            async with opened(broker.port, client_id="probe") as (_, said):
                await said.wait(lambda: said.of(LinkUp))
            assert len(heard) == 1


async def test_nobody_there_is_a_reason_in_words(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "m")
    async with opened(broker.port) as (_, said):
        await said.wait(lambda: said.reports)
        (down,) = said.reports
        assert isinstance(down, LinkDown)
        assert f"cannot connect to 127.0.0.1:{broker.port}" in down.reason


async def test_a_peer_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink_paho, "CONNECT_TIMEOUT_S", 0.5)
    async with serving() as port, opened(port) as (_, said):
        await said.wait(lambda: said.reports)
        assert said.reports == [LinkDown("the broker does not answer")]


async def test_a_wrong_password_is_a_reason_in_words(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("gw:$6$AAAAAAAAAAAAAAAA$" + "A" * 86 + "==\n")
    passwords.chmod(0o600)
    with Mosquitto(tmp_path / "m", password_file=passwords) as broker:
        async with opened(broker.port, username="gw", password="wrong") as (_, said):
            await said.wait(lambda: said.reports)
            (down,) = said.reports[:1]
            assert isinstance(down, LinkDown)
            assert "Not authorized" in down.reason


async def test_a_topic_that_the_broker_forbids_is_refused_by_name(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(f"topic read #\ntopic write {PREFIX}/health\n")
    acl.chmod(0o644)
    with Mosquitto(tmp_path / "m", extra_conf=f"acl_file {acl}") as broker:
        async with opened(broker.port) as (uplink, said):
            await said.wait(lambda: said.of(LinkUp))
            uplink.publish(event(1))
            await said.wait(lambda: said.of(Answered) or said.of(LinkDown))
            answered = said.of(Answered)
            assert answered == [Answered(event(1), "Not authorized", is_heard=False)]


async def test_message_expiry_travels(mosquitto: Mosquitto) -> None:
    expiring = Publication(f"{PREFIX}/state/m/g", b"now", retained=True, expiry_s=1)
    async with opened(mosquitto.port) as (uplink, said):
        await said.wait(lambda: said.of(LinkUp))
        uplink.publish(expiring)
        await said.wait(lambda: said.of(Answered))
        left = f"{PREFIX}/state/m/g"
        async with asyncio.timeout(DEADLINE_S):
            while True:
                async with watching(mosquitto.port, left, f"{PREFIX}/mark") as heard:
                    uplink.publish(Publication(f"{PREFIX}/mark", b"m", retained=False))
                    await said.wait(lambda heard=heard: any(topic.endswith("mark") for topic, _, _ in heard))  # type: ignore[misc]
                if not any(topic == left for topic, _, _ in heard):
                    break


OPENSSL = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, by openssl, which signs itself."""
    folder = tmp_path / "tls"
    folder.mkdir()
    subprocess.run(
        [*OPENSSL.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    (folder / "key.pem").chmod(0o644)
    return folder


# paho forgets to close the socket of a failed handshake; the interpreter does, and complains
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls_verifies_the_broker(tmp_path: Path, certificates: Path) -> None:
    conf = f"cafile {certificates}/cert.pem\ncertfile {certificates}/cert.pem\nkeyfile {certificates}/key.pem"
    with Mosquitto(tmp_path / "m", extra_conf=conf) as broker:
        async with opened(broker.port, is_tls=True, ca_file=certificates / "cert.pem") as (uplink, said):
            await said.wait(lambda: said.reports)
            assert said.reports == [LinkUp(1000)]
            await publish_a_window(uplink, said)
        async with opened(broker.port, is_tls=True) as (_, said):
            await said.wait(lambda: said.reports)
            (down,) = said.reports[:1]
            assert isinstance(down, LinkDown)
            assert "certificate verify failed" in down.reason


async def test_certificates_that_are_missing_for_a_while_end_no_connecting(
    tmp_path: Path, certificates: Path
) -> None:
    """They are being replaced: what is not there now is there in a moment, and nobody starts the agent again for it."""
    conf = f"cafile {certificates}/cert.pem\ncertfile {certificates}/cert.pem\nkeyfile {certificates}/key.pem"
    missing = tmp_path / "ca.pem"
    with Mosquitto(tmp_path / "m", extra_conf=conf) as broker:
        async with opened(broker.port, is_tls=True, ca_file=missing) as (_, said):
            await said.wait(lambda: said.reports)
            (down,) = said.reports[:1]
            assert isinstance(down, LinkDown)
            assert "No such file" in down.reason
            missing.write_bytes((certificates / "cert.pem").read_bytes())
            await said.wait(lambda: said.of(LinkUp))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_certificate_of_the_future_says_that_the_clock_is_wrong_and_is_tried_until_it_is_right(
    tmp_path: Path,
) -> None:
    """A machine that lost its clock at boot is behind every certificate, until network time has set it."""
    authority = Authority(tmp_path)
    signed = authority.sign("broker", valid_in=timedelta(seconds=8))
    signed.key_file.chmod(0o644)
    conf = f"cafile {authority.ca_file}\ncertfile {signed.cert_file}\nkeyfile {signed.key_file}"
    with Mosquitto(tmp_path / "m", extra_conf=conf) as broker:
        async with opened(broker.port, is_tls=True, ca_file=authority.ca_file) as (_, said):
            await said.wait(lambda: said.reports)
            (down,) = said.reports[:1]
            assert isinstance(down, LinkDown)
            assert "the clock is wrong" in down.reason
            await said.wait(lambda: said.of(LinkUp))


async def test_websockets_carry_the_same(tmp_path: Path) -> None:
    port = free_port()
    # its websockets library cannot listen on an address, but can on an interface
    with Mosquitto(tmp_path / "m", extra_conf=f"listener {port}\nbind_interface lo\nprotocol websockets"):
        async with opened(port, web_path="/mqtt") as (uplink, said):
            await said.wait(lambda: said.of(LinkUp))
            await publish_a_window(uplink, said)


async def test_a_broker_is_reached_by_a_process_that_has_a_thousand_other_connections(tmp_path: Path) -> None:
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Mosquitto(tmp_path / "broker") as broker, ExitStack() as others:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        others.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, most))
        for _ in range(1100):
            others.enter_context(socket.socket())
        async with opened(broker.port) as (uplink, listener):
            await listener.wait(lambda: listener.of(LinkUp))
            uplink.publish(event(1))
            await listener.wait(lambda: listener.of(Answered))
