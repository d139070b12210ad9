"""What settings mean to single adapters and services; used by `run` and by the verbs that need one of them alone."""

from __future__ import annotations

from edge_agent.broker.access import BrokerAccess
from gateway.adapters.words import load_words
from gateway.domain.teller import Voice
from gateway.settings import GatewaySettings, MqttSettings


def broker_access(mqtt: MqttSettings) -> BrokerAccess:
    """How to reach the broker."""
    return BrokerAccess(
        host=mqtt.host,
        port=mqtt.port,
        client_id=mqtt.client_id,
        web_path=mqtt.path or None,
        is_tls=mqtt.is_tls,
        username=mqtt.username,
        password=mqtt.password,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
    )


def make_voice(settings: GatewaySettings) -> Voice:
    """How the gateway speaks in messages."""
    return Voice(settings.language, load_words(), settings.time_zone, settings.http.base_url)
