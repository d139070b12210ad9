"""The broker settings shipped for production (deploy/mosquitto) admit who they should, and nobody else."""

import datetime as dt
import queue
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers import Mosquitto, write_password_file

pytestmark = pytest.mark.integration

TEMPLATES = Path(__file__).parents[2] / "deploy" / "mosquitto"
PATIENCE_S = 20.0
NOT_AUTHORIZED = 0x87
VALID_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
VALID_UNTIL = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.crt and NAME.key in PEM; returns both paths."""
        crt, key = folder / f"{name}.crt", folder / f"{name}.key"
        crt.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return crt, key


def issue(common_name: str, issuer: Identity | None = None) -> Identity:
    """A certificate for 127.0.0.1 by this issuer; without one an authority that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder(
        issuer_name=issuer.certificate.subject if issuer else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=VALID_FROM,
        not_valid_after=VALID_UNTIL,
    ).add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    loopback = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = builder.add_extension(loopback, critical=False)
    return Identity(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def revocation_list(authority: Identity, *revoked: Identity) -> bytes:
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=authority.certificate.subject, last_update=VALID_FROM, next_update=VALID_UNTIL
    )
    for identity in revoked:
        serial = identity.certificate.serial_number
        entry = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=VALID_FROM).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class TemplateBroker(Mosquitto):
    """A broker that runs a shipped file as it stands, but for its folders and its listener."""

    def __init__(self, template: str, folder: Path) -> None:
        super().__init__(folder)
        text = (TEMPLATES / template).read_text()
        text = text.replace("/etc/guardwatch/mosquitto", str(folder))
        text = text.replace("/var/lib/mosquitto/", f"{folder}/")
        self._text = text.replace("listener 8883", f"listener {self.port} 127.0.0.1\nuser root")
        (folder / "acl").write_text((TEMPLATES / "acl").read_text())

    def _settings(self) -> Iterator[str]:
        yield self._text


@dataclass(frozen=True)
class Plant:
    """The running broker, its authority and the folder with all certificates."""

    broker: TemplateBroker
    authority: Identity
    folder: Path


@pytest.fixture(params=["guardwatch-tls.conf", "guardwatch-password.conf"])
def plant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Plant]:
    """Each shipped variant in turn, with `gw-01`, `gw-02`, `gateway`, `reader` and the revoked `gw-09`."""
    authority = issue("Plant authority")
    authority.write(tmp_path, "ca")
    issue("localhost", authority).write(tmp_path, "server")
    users = ("gw-01", "gw-02", "gateway", "reader")
    for user in users:
        issue(user, authority).write(tmp_path, user)
    revoked = issue("gw-09", authority)
    revoked.write(tmp_path, "gw-09")
    (tmp_path / "crl.pem").write_bytes(revocation_list(authority, revoked))
    write_password_file(tmp_path / "passwords", {user: f"secret of {user}" for user in users})
    with TemplateBroker(str(request.param), tmp_path) as broker:
        yield Plant(broker, authority, tmp_path)


class Client:
    """A connected MQTT 5 client that knows how its publishes were answered."""

    def __init__(self, client: paho.Client) -> None:
        self._client = client
        self._answers: queue.Queue[int] = queue.Queue()
        self._granted: queue.Queue[int] = queue.Queue()
        self.inbox: queue.Queue[tuple[str, bytes]] = queue.Queue()
        client.on_publish = lambda _c, _d, _mid, code, _p: self._answers.put(code.value)
        client.on_subscribe = lambda _c, _d, _mid, codes, _p: self._granted.put(codes[0].value)
        client.on_message = lambda _c, _d, message: self.inbox.put((message.topic, bytes(message.payload)))

    def publish(self, topic: str, payload: bytes = b"{}") -> int:
        """Publish with QoS 1; returns the reason code of the broker's answer."""
        self._client.publish(topic, payload, qos=1)
        return self._answers.get(timeout=PATIENCE_S)

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, qos=1)
        self._granted.get(timeout=PATIENCE_S)


@contextmanager
def connected(plant: Plant, user: str, credentials: Path | None = None) -> Iterator[Client]:
    """Connect as this user, by certificate and password: the broker takes what its settings ask for.

    Raises ConnectionRefusedError or ssl.SSLError when the broker does not want this client.
    """
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False)
    folder = credentials or plant.folder
    context = ssl.create_default_context(cafile=str(plant.folder / "ca.crt"))
    if (folder / f"{user}.crt").exists():
        context.load_cert_chain(folder / f"{user}.crt", folder / f"{user}.key")
    client.tls_set_context(context)
    client.username_pw_set(user, f"secret of {user}")
    outcome: queue.Queue[int | None] = queue.Queue()
    client.on_connect = lambda _c, _d, _flags, code, _p: outcome.put(code.value)
    client.on_disconnect = lambda _c, _d, _flags, _code, _p: outcome.put(None)
    client.connect("localhost", plant.broker.port)
    client.loop_start()
    try:
        if outcome.get(timeout=PATIENCE_S) != 0:
            raise ConnectionRefusedError(user)
        yield Client(client)
    finally:
        client.disconnect()
        client.loop_stop()


REFUSED = (ConnectionRefusedError, ConnectionResetError, ssl.SSLError)


@pytest.mark.parametrize(
    "topic",
    ["events", "model", "model/mixer-18", "health", "health/2", "state/mixer-18/door-1"],
)
def test_an_agent_may_say_what_the_contract_lets_it_say(plant: Plant, topic: str) -> None:
    with connected(plant, "gw-01") as agent, connected(plant, "gateway") as gateway:
        gateway.subscribe("guardwatch/v1/#")
        assert agent.publish(f"guardwatch/v1/changyi/gw-01/{topic}", b"1") < 0x80
        assert gateway.inbox.get(timeout=PATIENCE_S) == (f"guardwatch/v1/changyi/gw-01/{topic}", b"1")


@pytest.mark.parametrize(
    "topic",
    [
        "guardwatch/v1/changyi/gw-02/events",  # another agent's stream
        "guardwatch/v1/changyi/gw-01/ack",  # its own acknowledgement
        "guardwatch/v1/changyi/gw-01/commands",  # there is no command path
        "elsewhere",
    ],
)
def test_an_agent_may_say_nothing_else(plant: Plant, topic: str) -> None:
    with connected(plant, "gw-01") as agent:
        assert agent.publish(topic) == NOT_AUTHORIZED


def test_an_agent_hears_its_own_acknowledgement_and_nothing_else(plant: Plant) -> None:
    with connected(plant, "gw-01") as agent, connected(plant, "gateway") as gateway:
        agent.subscribe("#")
        with connected(plant, "gw-02") as other:
            assert other.publish("guardwatch/v1/changyi/gw-02/events") < 0x80
        assert gateway.publish("guardwatch/v1/changyi/gw-02/ack") < 0x80
        assert gateway.publish("guardwatch/v1/changyi/gw-01/ack", b"mine") < 0x80
        assert agent.inbox.get(timeout=PATIENCE_S) == ("guardwatch/v1/changyi/gw-01/ack", b"mine")
        assert agent.inbox.empty()


def test_the_gateway_only_acknowledges(plant: Plant) -> None:
    with connected(plant, "gateway") as gateway:
        assert gateway.publish("guardwatch/v1/changyi/gw-01/events") == NOT_AUTHORIZED


def test_a_reader_sees_states_and_says_nothing(plant: Plant) -> None:
    with connected(plant, "reader") as reader, connected(plant, "gw-01") as agent:
        reader.subscribe("guardwatch/v1/#")
        agent.publish("guardwatch/v1/changyi/gw-01/events")
        agent.publish("guardwatch/v1/changyi/gw-01/state/mixer-18/door-1", b"open")
        assert reader.inbox.get(timeout=PATIENCE_S)[1] == b"open"
        assert reader.publish("guardwatch/v1/changyi/reader-no/ack") == NOT_AUTHORIZED


def test_who_has_no_identity_is_refused(plant: Plant) -> None:
    with pytest.raises(REFUSED), connected(plant, "stranger"):
        pass


def test_a_revoked_identity_is_refused(plant: Plant) -> None:
    with pytest.raises(REFUSED), connected(plant, "gw-09"):
        pass


@pytest.mark.parametrize("plant", ["guardwatch-tls.conf"], indirect=True)
def test_a_certificate_of_another_authority_is_refused_whatever_its_name(
    plant: Plant, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    issue("gw-01", issue("Plant authority")).write(elsewhere, "gw-01")
    with pytest.raises(REFUSED), connected(plant, "gw-01", elsewhere):
        pass


@pytest.mark.parametrize("plant", ["guardwatch-password.conf"], indirect=True)
def test_plain_tcp_is_refused(plant: Plant) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False)
    client.username_pw_set("gw-01", "secret of gw-01")
    gone: queue.Queue[bool] = queue.Queue()
    client.on_disconnect = lambda *_: gone.put(True)
    client.on_connect = lambda *_: gone.put(False)
    client.connect("localhost", plant.broker.port)
    client.loop_start()
    try:
        assert gone.get(timeout=PATIENCE_S)
    finally:
        client.loop_stop()
