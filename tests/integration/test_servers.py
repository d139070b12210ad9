"""The servers that all other real tests stand on: each starts, does its work and comes back after SIGKILL."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from simulators import servers as lookup
from tests.servers import Influx, InfluxBucket, Mosquitto, Postgres, ServerError, accepts_connections

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0


class Peer:
    """An MQTT 5 client that a test drives by hand."""

    def __init__(self, client: paho.Client, inbox: queue.Queue[bytes], receive_maximum: int) -> None:
        self.client = client
        self.inbox = inbox
        self.receive_maximum = receive_maximum

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def subscribe(self, topic: str) -> None:
        granted: queue.Queue[int] = queue.Queue()
        self.client.on_subscribe = lambda _client, _data, _mid, codes, _props: granted.put(codes[0].value)
        self.client.subscribe(topic, qos=1)
        assert granted.get(timeout=PATIENCE_S) == 1


@contextmanager
def connected(broker: Mosquitto, client_id: str = "", *, lasting: bool = False) -> Iterator[Peer]:
    """Connect; `lasting` asks the broker to keep the session for an hour."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
    inbox: queue.Queue[bytes] = queue.Queue()
    greeting: queue.Queue[int] = queue.Queue()
    client.on_message = lambda _client, _data, message: inbox.put(bytes(message.payload))
    client.on_connect = lambda _c, _d, _f, _code, props: greeting.put(
        getattr(props, "ReceiveMaximum", 65_535)
    )
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600 if lasting else 0
    client.connect("127.0.0.1", broker.port, clean_start=not lasting, properties=properties)
    client.loop_start()
    try:
        yield Peer(client, inbox, greeting.get(timeout=PATIENCE_S))
    finally:
        client.disconnect()
        client.loop_stop()


def test_mosquitto_carries_a_message_from_a_publisher_to_a_subscriber(mosquitto: Mosquitto) -> None:
    with connected(mosquitto) as subscriber, connected(mosquitto) as publisher:
        subscriber.subscribe("plant/#")
        publisher.publish("plant/door", b"open")
        assert subscriber.inbox.get(timeout=PATIENCE_S) == b"open"


def test_mosquitto_grants_the_send_window_that_the_project_asks_for(mosquitto: Mosquitto) -> None:
    with connected(mosquitto) as peer:
        assert peer.receive_maximum == 1000  # its own default is 20


def test_mosquitto_comes_back_on_its_port_after_a_kill(mosquitto: Mosquitto) -> None:
    port, first = mosquitto.port, mosquitto.pid
    mosquitto.kill()
    assert not accepts_connections(port)
    mosquitto.start()
    assert mosquitto.port == port
    assert mosquitto.pid != first
    with connected(mosquitto) as peer:
        peer.publish("plant/door", b"closed")


def test_mosquitto_without_persistence_forgets_everything_in_a_kill(mosquitto: Mosquitto) -> None:
    with connected(mosquitto) as peer:
        peer.publish("plant/door", b"open", retain=True)
    mosquitto.kill()
    mosquitto.start()
    with connected(mosquitto) as peer:
        peer.subscribe("plant/#")
        peer.publish("plant/end", b"end")
        assert peer.inbox.get(timeout=PATIENCE_S) == b"end"


def test_mosquitto_with_persistence_keeps_a_retained_message_until_it_is_wiped(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, persistence=True) as broker:
        with connected(broker) as peer:
            peer.publish("plant/door", b"open", retain=True)
        broker.stop()
        broker.start()
        with connected(broker) as peer:
            peer.subscribe("plant/#")
            assert peer.inbox.get(timeout=PATIENCE_S) == b"open"
        broker.stop()
        broker.wipe()
        broker.start()
        with connected(broker) as peer:
            peer.subscribe("plant/#")
            peer.publish("plant/end", b"end")
            assert peer.inbox.get(timeout=PATIENCE_S) == b"end"


def test_mosquitto_queues_more_than_its_default_thousand_for_an_absent_subscriber(
    mosquitto: Mosquitto,
) -> None:
    count = 1500
    with connected(mosquitto, "gateway", lasting=True) as subscriber:
        subscriber.subscribe("plant/#")
    with connected(mosquitto) as publisher:
        for number in range(count):
            publisher.publish("plant/door", b"%d" % number)
    with connected(mosquitto, "gateway", lasting=True) as subscriber:
        received = [subscriber.inbox.get(timeout=PATIENCE_S) for _ in range(count)]
    assert received == [b"%d" % number for number in range(count)]


def test_influx_returns_by_flux_what_was_written(influx: InfluxBucket) -> None:
    influx.write_lines('guard_state,guard=door-1 state="open",code=3i,share=0.5,hot=true 1763800000000000007')
    (open_door,) = influx.query_lines(
        f'from(bucket: "{influx.bucket}") |> range(start: 0)'
        ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
    )
    assert open_door["guard"] == "door-1"
    assert (open_door["state"], open_door["code"]) == ("open", 3)
    assert (open_door["share"], open_door["hot"]) == (0.5, True)
    assert open_door["_time"] == "2025-11-22T08:26:40.000000007Z"


def test_each_test_has_an_influx_bucket_of_its_own(influx_server: Influx) -> None:
    first, second = influx_server.create_bucket(), influx_server.create_bucket()
    first.write_lines("violation,guard=door-1 active=1i 1763800000000000000")
    assert second.query_lines(f'from(bucket: "{second.bucket}") |> range(start: 0)') == []


def test_influx_says_why_it_refuses_a_line(influx: InfluxBucket) -> None:
    with pytest.raises(ServerError, match="400"):
        influx.write_lines("this is no line protocol")


def test_influx_keeps_its_points_over_a_kill(tmp_path: Path) -> None:
    with Influx(tmp_path) as server:
        server.default_bucket().write_lines("violation,guard=door-1 active=1i 1763800000000000000")
        server.kill()
        server.start()
        (raised,) = server.query_lines(f'from(bucket: "{server.bucket}") |> range(start: 0)')
        assert (raised["_field"], raised["_value"]) == ("active", 1)


def test_postgres_stores_a_row_in_a_fresh_database(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE journal (position bigint PRIMARY KEY, body text)")
        connection.execute("INSERT INTO journal VALUES (1, '防护门')")
        assert connection.execute("SELECT body FROM journal").fetchall() == [("防护门",)]


def test_each_test_has_a_postgres_database_of_its_own(postgres_server: Postgres) -> None:
    first, second = postgres_server.create_database(), postgres_server.create_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE journal (position bigint)")
    with psycopg.connect(second) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)


def test_postgres_keeps_what_was_committed_over_a_kill(tmp_path: Path) -> None:
    with Postgres(tmp_path) as server:
        url = server.create_database()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE journal AS SELECT 7 AS position")
        server.kill()
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT position FROM journal").fetchone() == (7,)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, extra_conf="no_such_setting true")
    with pytest.raises(ServerError, match="no_such_setting"):
        broker.start()


def test_a_missing_server_is_an_error_that_names_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(lookup, "_SYSTEM_FOLDERS", ())
    with pytest.raises(ServerError, match="no mosquitto on this machine — run `make servers`"):
        Mosquitto(tmp_path).start()
