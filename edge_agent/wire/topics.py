"""Where things travel on MQTT: `guardwatch/v1/{site}/{agent}/…` (the outside contract, section 3).

An agent publishes below its own prefix and subscribes to nothing but its own `ack`: there is no command path to the
plant floor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

ROOT = "guardwatch/v1"
"""First levels of every topic; the version is the wire's."""

ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
"""What every id in a topic and in a configuration looks like (the outside contract, section 2)."""


class Channel(StrEnum):
    """What a topic below an agent's prefix carries."""

    EVENTS = "events"
    MODEL = "model"
    HEALTH = "health"
    STATE = "state"
    ACK = "ack"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed topic: whose, which channel, and the levels after it (a machine, a machine and guard, a page)."""

    site: str
    agent: str
    channel: Channel
    rest: tuple[str, ...]


def topic(site: str, agent: str, channel: Channel, *rest: str) -> str:
    """The topic of one agent's channel, e.g. `topic("changyi", "gw-01", Channel.STATE, "mixer-18", "door-1")`."""
    return "/".join((ROOT, site, agent, channel.value, *rest))


TOPIC_MAX_CHARS = 512
"""No topic of ours is half as long; MQTT allows 65 535, which nobody should make us remember."""


def parse(text: str) -> Address | None:
    """The address that a topic names, or None when it is none of ours. Never raises."""
    return _parse(text) if len(text) <= TOPIC_MAX_CHARS else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Address | None:
    """A gateway sees the same few topics again and again: the last 4096 are remembered."""
    levels = text.split("/")
    if len(levels) < 5 or "/".join(levels[:2]) != ROOT:
        return None
    levels = levels[2:]
    site, agent, name, *rest = levels
    if not (ID_PATTERN.fullmatch(site) and ID_PATTERN.fullmatch(agent)):
        return None
    try:
        return Address(site, agent, Channel(name), tuple(rest))
    except ValueError:
        return None
