"""Who is told, and who talks: a mailbox behind a gateway's webhook, and somebody who can reach the broker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.whole_plant import Mailbox

ALERTING = """
people: {{li-qiang: {{name: {{zh: 李强, en: Li Qiang}}, role: shift_manager, language: en}}}}
channels: {{hook: {{kind: webhook, url: "http://127.0.0.1:{port}/alerts"}}}}
routes: [{{match: {{priority: [P1, P2]}}, to: ["role:shift_manager"], via: [hook]}}]
"""


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """Somebody who can be told."""
    box = Mailbox()
    try:
        yield box
    finally:
        box.stop()


def tell(box: Mailbox) -> str:
    """A gateway's configuration that tells this mailbox of everything urgent."""
    return ALERTING.format(port=box.port)


def publish(port: int, messages: Iterable[tuple[str, bytes]]) -> None:
    """Publish these, topic and payload, in order, as somebody who is no agent of ours; returns when the broker has them."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="somebody", protocol=MQTTProtocolVersion.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        for topic, payload in messages:
            client.publish(topic, payload, qos=1).wait_for_publish(30)
    finally:
        client.disconnect()
        client.loop_stop()
