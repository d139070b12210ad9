"""Heads: signed statements of how far a chain had got, kept where whoever rewrites the chain cannot reach them.

A chain that was cut off cleanly, or whose file was replaced by an older copy, is whole in itself; so is one that was
rewritten by somebody who has its key. Only a statement from before, held elsewhere, contradicts them. There are two,
JSON Lines in one file (canonical form, a later version may add members):

    {"head":"agent", …}     an agent's checkpoint: its own signature over the event `upto` of an epoch
    {"head":"journal", …}   a gateway's: position and link of its last entry, and the last event that it held of each
                            agent, signed with the gateway's own key over a prefix line and the object without `signature`

Both name the public key that they are signed with. That proves them whole, not true: who verifies must have got the
file, or the key, from somewhere else than the machine that is verified.

Source: the outside contract, section 6; reliability invariant I-22 (heads leave the box).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TypeAlias, TypeVar, cast

from edge_agent.wire.chain import canonical, checkpoint_message
from edge_agent.wire.codec import DecodeError, parse_object
from edge_agent.wire.event import Json
from edge_agent.wire.structure import plain, structure

AgentKey: TypeAlias = tuple[str, str]
"""Site and agent."""

EventKey: TypeAlias = tuple[str, str, str, int]
"""Site, agent, epoch and seq."""

IsSigned: TypeAlias = Callable[[str, bytes, str], bool]
"""Whether, by this public key (base64), over this message, this signature (base64) was made."""

_K = TypeVar("_K")

_PREFIX = b"guardwatch-head-v1\n"


@dataclass(frozen=True, slots=True)
class AgentHead:
    """A checkpoint as its agent signed it. `at` is the checkpoint's own time, which the signature does not cover."""

    site: str
    agent: str
    epoch: str
    upto: int
    upto_hash: str
    at: str
    public_key: str
    signature: str

    @property
    def message(self) -> bytes:
        """What is signed."""
        return checkpoint_message(self.site, self.agent, self.epoch, self.upto, self.upto_hash)


@dataclass(frozen=True, slots=True)
class HeldEvent:
    """The last event that a journal held of an agent."""

    site: str
    agent: str
    epoch: str
    seq: int
    hash: str
    at: str


@dataclass(frozen=True, slots=True)
class JournalHead:
    """How far a gateway's journal had got at `at` (its own time); `link` is that of the entry at `position`."""

    position: int
    link: str
    at: str
    agents: tuple[HeldEvent, ...]
    public_key: str
    signature: str = ""

    @property
    def message(self) -> bytes:
        """What is signed."""
        return _journal_message(head_document(self))


Head: TypeAlias = AgentHead | JournalHead

_KINDS: Mapping[str, type[Head]] = {"agent": AgentHead, "journal": JournalHead}


@dataclass(frozen=True, slots=True)
class Pin:
    """What a head says must stand at one place: a hash or link; `at` when; `by` how people are told of the head."""

    digest: str
    at: str
    by: str


class BadHeadError(Exception):
    """A line of a file of heads is none (`is_forged` False), or does not bear its key's signature (True)."""

    def __init__(self, line: int, reason: str, *, is_forged: bool = False) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason
        self.is_forged = is_forged


@dataclass(frozen=True, slots=True)
class Heads:
    """Everything that a file of heads says, by place. `keys` are those that heads of agents are signed with."""

    events: Mapping[EventKey, tuple[Pin, ...]] = field(default_factory=dict)
    links: Mapping[int, tuple[Pin, ...]] = field(default_factory=dict)
    keys: Mapping[AgentKey, frozenset[str]] = field(default_factory=dict)

    def events_of(self, agent: AgentKey) -> Mapping[EventKey, tuple[Pin, ...]]:
        """What is said of one agent's events."""
        return {key: pins for key, pins in self.events.items() if key[:2] == agent}


def head_line(head: Head) -> str:
    """A head as a line of a file of heads, without the line end."""
    return canonical(head_document(head)).decode()


def head_document(head: Head) -> dict[str, Json]:
    """A head as a JSON object."""
    kind = "agent" if isinstance(head, AgentHead) else "journal"
    return {"head": kind, **{item.name: plain(getattr(head, item.name)) for item in fields(head)}}


def read_head(line: bytes) -> tuple[Head, bytes] | str:
    """The head in a line and what its signature is over, or why it is none. Proves no signature. Never raises."""
    document = parse_object(line)
    if isinstance(document, DecodeError):
        return document.reason
    kind = document.get("head")
    if not isinstance(kind, str) or kind not in _KINDS:
        return "it is neither an agent's head nor a journal's"
    try:
        head = cast("Head", structure(_KINDS[kind], document, f"{kind} head"))
        if isinstance(head, AgentHead):
            return head, head.message
        return head, _journal_message(document)
    except ValueError as misfit:
        return str(misfit)


def collect_heads(lines: Iterable[bytes], is_signed: IsSigned, *, gateway_key: str | None = None) -> Heads:
    """All heads of a file, their signatures checked; with `gateway_key` journal heads by another key are forged.

    Raises `BadHeadError` for the first line that is none.
    """
    events: dict[EventKey, tuple[Pin, ...]] = {}
    links: dict[int, tuple[Pin, ...]] = {}
    keys: dict[AgentKey, frozenset[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = read_head(line.strip())
        if isinstance(found, str):
            raise BadHeadError(number, found)
        head, message = found
        is_others = isinstance(head, JournalHead) and gateway_key not in {None, head.public_key}
        if is_others or not is_signed(head.public_key, message, head.signature):
            reason = "another key than the gateway's" if is_others else "it does not bear its key's signature"
            raise BadHeadError(number, reason, is_forged=True)
        if isinstance(head, AgentHead):
            agent = (head.site, head.agent)
            keys[agent] = keys.get(agent, frozenset()) | {head.public_key}
            pin = Pin(head.upto_hash, head.at, f"the agent's head of {head.at}")
            _pin(events, (*agent, head.epoch, head.upto), pin)
            continue
        by = f"the gateway's head of {head.at}"
        _pin(links, head.position, Pin(head.link, head.at, by))
        for held in head.agents:
            _pin(events, (held.site, held.agent, held.epoch, held.seq), Pin(held.hash, held.at, by))
    return Heads(events, links, keys)


def _pin(pins: dict[_K, tuple[Pin, ...]], key: _K, pin: Pin) -> None:
    """Note a pin; of several that say the same the first is enough."""
    known = pins.get(key, ())
    if all(other.digest != pin.digest for other in known):
        pins[key] = (*known, pin)


def _journal_message(document: Mapping[str, Json]) -> bytes:
    """Everything in the object is signed, also what a later version adds."""
    return _PREFIX + canonical({key: value for key, value in document.items() if key != "signature"})
