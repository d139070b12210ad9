"""The gateway's configuration: what it means, and every mistake at its place with the way to mend it."""

from datetime import time
from pathlib import Path

import pytest

from edge_agent.configfile import Document, Problem, parse
from gateway.domain.access import Role
from gateway.domain.channels import SmtpChannel, StartTls, WebhookChannel
from gateway.domain.notify import Language
from gateway.settings import EvidenceSettings, GatewaySettings, load, make_settings

LEAST = "mqtt: {url: mqtt://broker.example}\n"
PEOPLE = """\
people:
  li: {name: {zh: 李强, en: Li Qiang}, role: shift_manager, email: li@plant.example}
  wang: {name: {zh: 王芳, en: Wang Fang}}
channels:
  hook: {kind: webhook, url: "http://127.0.0.1:9000/alerts"}
  mail: {kind: smtp, url: "smtp://127.0.0.1", from: guardwatch@plant.example}
"""


def document_of(text: str, folder: Path, environ: dict[str, str] | None = None) -> Document:
    document = parse(text.encode(), str(folder / "gateway.yaml"), environ or {})
    assert isinstance(document, Document), document
    return document


def good(text: str, folder: Path, environ: dict[str, str] | None = None) -> GatewaySettings:
    settings = make_settings(document_of(text, folder, environ))
    assert isinstance(settings, GatewaySettings), [str(problem) for problem in settings]
    return settings


def problems(text: str, folder: Path, environ: dict[str, str] | None = None) -> list[Problem]:
    found = make_settings(document_of(text, folder, environ))
    assert isinstance(found, list), found
    return found


def test_the_least_configuration_has_sensible_defaults(tmp_path: Path) -> None:
    settings = good(LEAST, tmp_path)
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8080)
    assert settings.http.base_url == "http://127.0.0.1:8080"
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.is_tls) == ("broker.example", 1883, False)
    assert settings.journal_url == f"sqlite:///{tmp_path}/var/gateway.db"
    assert settings.influxdb is None
    assert (settings.time_zone.key, settings.language) == ("Asia/Shanghai", Language.ZH)
    assert settings.anonymous is None
    assert not settings.alerting.is_on


def test_everything_that_can_be_said_is_understood(tmp_path: Path) -> None:
    for name in ("hook", "smtp", "mqtt", "influx"):
        (tmp_path / name).write_text(f"secret of {name}\n")
    (tmp_path / "ca.pem").write_text("certificate")
    text = """\
http: {listen: "[::1]:9090", base_url: "https://guardwatch.example/"}
mqtt: {url: wss://broker.example/mqtt, client_id: gw, username: gateway, password_file: mqtt, ca_file: ca.pem}
journal: {url: "sqlite:////srv/guardwatch/gateway.db"}
influxdb: {url: "http://127.0.0.1:8086/", org: plant, bucket: guards, token_file: influx, timeout_ms: 3000}
time_zone: UTC
language: en
auth: {anonymous: viewer}
people:
  li: {name: {zh: 李强, en: Li Qiang}, role: shift_manager, language: zh, email: li@plant.example, mobile: "+86…"}
shifts:
  night: {from: "20:00", to: "08:00", days: [fri, sat], people: [li]}
channels:
  hook: {kind: webhook, url: "https://127.0.0.1/alerts", secret_file: hook}
  mail:
    {kind: smtp, url: smtps://mail.example, from: gw@plant.example, username: gw, password_file: smtp, starttls: never}
routes:
  - {match: {priority: [P1, P2]}, to: [li], via: [mail, hook], repeat_s: 60}
  - {match: {rule: estop, area: [moulding]}, to: ["role:shift_manager"], via: [hook]}
  - {to: [li], via: [hook]}
"""
    settings = good(text, tmp_path)
    assert (settings.http.host, settings.http.base_url) == ("::1", "https://guardwatch.example")
    mqtt = settings.mqtt
    assert (mqtt.port, mqtt.path, mqtt.is_tls, mqtt.password) == (443, "/mqtt", True, "secret of mqtt")
    assert settings.journal_url == "sqlite:////srv/guardwatch/gateway.db"
    assert settings.influxdb is not None
    assert (settings.influxdb.url, settings.influxdb.token) == ("http://127.0.0.1:8086", "secret of influx")
    assert settings.anonymous is Role.VIEWER
    assert settings.channels["hook"] == WebhookChannel("https://127.0.0.1/alerts", "secret of hook")
    mail = settings.channels["mail"]
    assert isinstance(mail, SmtpChannel)
    assert (mail.port, mail.is_tls, mail.password, mail.starttls) == (
        465,
        True,
        "secret of smtp",
        StartTls.NEVER,
    )
    (night,) = settings.alerting.shifts
    assert (night.starts, night.ends, night.days) == (time(20), time(8), frozenset({4, 5}))
    first, second, third = settings.alerting.routes
    assert (first.match.priority, first.to, first.via, first.repeat_s) == (
        frozenset({"P1", "P2"}),
        ("li",),
        ("mail", "hook"),
        60,
    )
    assert (second.match.rule, second.match.area) == (frozenset({"estop"}), frozenset({"moulding"}))
    assert third.match.priority is None


def test_no_secret_shows_in_what_a_log_could_print(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    text = (
        "mqtt: {url: mqtt://b, username: u, password_file: secret}\n"
        "influxdb: {url: http://i, org: o, bucket: b, token_file: secret}\n"
        "channels: {hook: {kind: webhook, url: http://h, secret_file: secret}}\n"
    )
    assert "hunter2" not in repr(good(text, tmp_path))


def test_the_signing_key_lies_beside_the_journal_and_heads_go_where_the_file_says(tmp_path: Path) -> None:
    least = good(LEAST, tmp_path).evidence
    assert least == EvidenceSettings(tmp_path / "var/gateway.db.key", None, 1)
    server = good(LEAST + "journal: {url: postgresql://gw@db.example/gw}\n", tmp_path).evidence
    assert server.key_file == tmp_path / "gateway.key"
    text = LEAST + "evidence: {heads_dir: /mnt/heads, every_h: 6, key_file: secrets/gateway.key}\n"
    said = good(text, tmp_path).evidence
    assert said == EvidenceSettings(tmp_path / "secrets/gateway.key", Path("/mnt/heads"), 6)


def test_a_listening_address_for_everyone_is_reached_by_the_machines_name(tmp_path: Path) -> None:
    settings = good(LEAST + 'http: {listen: "0.0.0.0:80"}\n', tmp_path)
    assert "0.0.0.0" not in settings.http.base_url


def test_a_database_servers_password_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("p@ss/word")
    text = LEAST + "journal: {url: postgresql://guardwatch@db.example:5433/journal, password_file: db}\n"
    assert good(text, tmp_path).journal_url == "postgresql://guardwatch:p%40ss%2Fword@db.example:5433/journal"
    text = LEAST + "journal: {url: postgresql://guardwatch@db.example/journal}\n"
    assert good(text, tmp_path).journal_url == "postgresql://guardwatch@db.example/journal"


ROUTE = "routes: [{match: {priority: [P1, P2]}, to: [li], via: [hook]}]\n"

BAD = [
    ("http: {listen: 8080}\n", (1, 16), "must be text"),
    ('http: {listen: "8080"}\n', (1, 16), "is no HOST:PORT"),
    ('http: {listen: "localhost:0"}\n', (1, 16), "is no HOST:PORT"),
    ("http: {base_url: guardwatch.example}\n", (1, 18), "no address of this kind"),
    ("time_zone: Shanghai\n", (1, 12), "is not known on this machine"),
    ("time_zone: ../etc/passwd\n", (1, 12), "is not known on this machine"),
    ("language: de\n", (1, 11), "which is not known"),
    ("auth: {anonymous: admin}\n", (1, 19), "which is not known"),
    ("journal: {url: mysql://db/journal}\n", (1, 16), "names no database that can hold a journal"),
    ('journal: {url: "sqlite://"}\n', (1, 16), "names no database that can hold a journal"),
    ("journal: {url: postgresql://u:secret@db/journal}\n", (1, 16), "a password stands in the configuration"),
    ("journal: {url: 'sqlite:///a.db', password_file: none}\n", (1, 34), "a file has no password"),
    ("influxdb: {url: http://i, org: o, bucket: b, token_file: none}\n", (1, 58), "does not exist"),
    ("influxdb: {url: i:8086, org: o, bucket: b, token_file: none}\n", (1, 17), "no address of this kind"),
    ("influx: {}\n", (1, 1), "unknown key `influx`"),
    ("people: {Li: {name: {zh: a, en: b}}}\n", (1, 10), "is no id"),
    ("people: {li: {name: {zh: a}}}\n", (1, 15), "`en` is missing"),
    ("people: {li: {name: {zh: a, en: b}, email: nobody}}\n", (1, 44), "is no mail address"),
    ("shifts: {day: {from: '06:00', to: '14:00', people: [li]}}\n", (1, 53), "nobody under `people`"),
    ("shifts: {day: {from: 6, to: '14:00', people: [li]}}\n", (1, 22), "must be text"),
    ("shifts: {day: {from: '24:00', to: '14:00', people: [li]}}\n", (1, 22), "is no time of day"),
    ("channels: {hook: {kind: webhook, url: ftp://h}}\n", (1, 39), "no address of this kind"),
    (
        "channels: {hook: {kind: webhook, url: 'http://u:p@h'}}\n",
        (1, 39),
        "a user or password stands in the URL",
    ),
    ("channels: {hook: {kind: pager, url: http://h}}\n", (1, 18), "which is not known"),
    (
        "channels: {mail: {kind: smtp, url: smtp://h, from: a@b, username: u}}\n",
        (1, 57),
        "without `password_file`",
    ),
    (
        "channels: {hook: {kind: webhook, url: http://h, heartbeat_to: zhao}}\n",
        (1, 63),
        '"zhao" is nobody under `people`',
    ),
    (PEOPLE + "routes: [{to: [zhao], via: [hook]}]\n", (7, 16), '"zhao" is nobody under `people`'),
    (PEOPLE + "routes: [{to: ['role:owner'], via: [hook]}]\n", (7, 16), 'nobody has the role "owner"'),
    (PEOPLE + "routes: [{to: [li], via: [sms]}]\n", (7, 27), '"sms" is no channel'),
    (PEOPLE + "routes: [{to: [li, wang], via: [mail]}]\n", (7, 20), "wang has no `email`"),
    (PEOPLE + "routes: [{to: [], via: [hook]}]\n", (7, 15), "too few entries"),
    (PEOPLE + "routes: [{match: {priority: P5}, to: [li], via: [hook]}]\n", (7, 29), "which is not known"),
    (PEOPLE + "routes: [{match: {device: x}, to: [li], via: [hook]}]\n", (7, 19), "unknown key `device`"),
    (
        PEOPLE + "routes: [{match: {priority: P1}, to: [li], via: [hook]}]\n",
        (7, 1),
        "no route takes every P2",
    ),
    (
        PEOPLE + "routes: [{match: {priority: [P1, P2], area: x}, to: [li], via: [hook]}]\n",
        (7, 1),
        "no route takes every P1",
    ),
]


@pytest.mark.parametrize(("text", "place", "what"), BAD)
def test_a_mistake_is_named_at_its_place_with_the_way_to_mend_it(
    tmp_path: Path, text: str, place: tuple[int, int], what: str
) -> None:
    found = problems(text + LEAST, tmp_path)
    named = [problem for problem in found if what in problem.what]
    assert named, [str(problem) for problem in found]
    assert (named[0].line, named[0].col) == place
    assert named[0].mend


BAD_BROKER = [
    ("mqtt: {url: http://b}\n", "no address of this kind"),
    ("mqtt: {url: mqtt://b/path}\n", "goes on after the port"),
    ("mqtt: {url: mqtt://b, ca_file: ca.pem}\n", "needs an encrypted link"),
    ("mqtt: {url: mqtts://b, ca_file: ca.pem}\n", "cannot be read"),
    ("mqtt: {url: mqtts://b, cert_file: c.pem}\n", "stands without `key_file`"),
    ("mqtt: {url: mqtt://b, username: u, password: secret}\n", "a password stands in the configuration"),
    ("mqtt: {url: mqtt://b, password: '${PASSWORD}'}\n", "a password stands without `username`"),
    ("mqtt: {url: mqtt://b, username: u, password: a, password_file: b}\n", "stand both"),
    ("mqtt: {}\n", "`url` is missing"),
    ("http: {}\n", "`mqtt` is missing"),
]


@pytest.mark.parametrize(("text", "what"), BAD_BROKER)
def test_mistakes_in_the_brokers_section_are_named(tmp_path: Path, text: str, what: str) -> None:
    found = problems(text, tmp_path, {"PASSWORD": "hunter2"})
    assert any(what in problem.what for problem in found), [str(problem) for problem in found]


def test_all_mistakes_are_named_at_once_whatever_step_finds_them(tmp_path: Path) -> None:
    text = (
        "mqtt: {url: mqtt://b, colour: red}\n"
        "time_zone: Shanghai\n"
        "people: {li: {name: {zh: a, en: b}, email: 5}}\n"
        "channels: {hook: {kind: webhook, url: 'nowhere'}}\n"
        "routes: [{to: [nobody], via: [hook]}]\n"
    )
    lines = {problem.line for problem in problems(text, tmp_path)}
    assert lines == {1, 2, 3, 4, 5}


def test_a_person_or_channel_that_does_not_fit_is_not_called_missing_too(tmp_path: Path) -> None:
    text = LEAST + (
        "people: {li: {name: {zh: a, en: b}, mobile: 5}}\n"
        "channels: {hook: {kind: pager, url: 'http://h'}}\n"
        "routes: [{to: [li], via: [hook]}]\n"
    )
    assert {problem.line for problem in problems(text, tmp_path)} == {2, 3}


def test_the_demo_and_the_example_are_good() -> None:
    ports = dict.fromkeys(("HTTP", "MQTT", "WEBHOOK"), "8090")
    environ = {f"GUARDWATCH_{name}_PORT": port for name, port in ports.items()}
    demo = load(Path("config/demo/gateway.yaml"), environ)
    assert isinstance(demo, GatewaySettings), demo
    assert demo.anonymous is Role.VIEWER
    assert demo.alerting.is_on
    example = load(Path("config/examples/gateway.yaml"), {"GUARDWATCH_MQTT_PASSWORD": "secret"})
    assert isinstance(example, GatewaySettings), example
    assert set(example.channels) == {"mail", "hook"}
