"""The broker section as settings: URL parsed, secrets read, certificate files found.

Source: the outside contract, sections 2 and 3.
"""

from __future__ import annotations

from edge_agent.configfile import Document, Problem, read_secret
from edge_agent.settings.certificates import certificate_files, refuse_certificates
from edge_agent.settings.link import BadUrl, Broker, parse_broker
from edge_agent.settings.schema import MqttSection
from edge_agent.settings.settled import Delivery, MqttSettings
from edge_agent.settings.spot import Spot


def broker_settings(document: Document, section: MqttSection) -> tuple[MqttSettings | None, list[Problem]]:
    """The settings, or None, and every problem of the section."""
    spot = Spot(document, ("mqtt",))
    problems: list[Problem] = []
    broker = _broker(spot, section, problems)
    password = _password(spot, section, problems)
    files = certificate_files(spot, section, problems)
    if broker is not None and not broker.is_tls:
        refuse_certificates(spot, files, broker.scheme, "write mqtts:// or wss://", problems)
    if broker is None or problems:
        return None, problems
    settings = MqttSettings(
        scheme=broker.scheme,
        host=broker.host,
        port=broker.port,
        path=broker.path,
        is_tls=broker.is_tls,
        username=section.username,
        password=password,
        ca_file=files.ca_file,
        cert_file=files.cert_file,
        key_file=files.key_file,
        delivery=Delivery(section.delivery),
    )
    return settings, []


def _broker(spot: Spot, section: MqttSection, problems: list[Problem]) -> Broker | None:
    try:
        return parse_broker(section.url)
    except BadUrl as bad:
        problems.append(spot.problem(f"`url`: {bad.what}", bad.mend, "url"))
        return None


def _password(spot: Spot, section: MqttSection, problems: list[Problem]) -> str | None:
    """The password from its file or from the environment; a password in the file itself is refused."""
    if section.password is not None and section.password_file is not None:
        problems.append(
            spot.problem("`password` and `password_file` stand both", "keep one", "password", at_key=True)
        )
        return None
    found = section.password
    if found is not None and not spot.document.is_substituted((*spot.path, "password")):
        mend = "write password: ${NAME}, or use password_file"
        problems.append(spot.problem("a password stands in the configuration", mend, "password", at_key=True))
    if section.password_file is not None:
        secret = read_secret(spot.document, (*spot.path, "password_file"))
        if isinstance(secret, Problem):
            problems.append(secret)
            return None
        found = secret
    if found is not None and section.username is None:
        problems.append(spot.problem("a password stands without `username`", "add username", at_key=True))
    return found
