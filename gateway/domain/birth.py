"""Birth certificates as they arrive: retained payloads that say what an agent and its machines are.

They are retained, so the same ones come again at every connect: only a changed one is an entry. A machine's
certificate names the run that published it; a new run alone does not change the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TypeVar

from edge_agent.wire.chain import canonical
from edge_agent.wire.codec import DecodeError, parse_object
from edge_agent.wire.event import Json
from edge_agent.wire.status import decode_agent_model, decode_machine_model
from gateway.domain.journal import AgentModelled, MachineModelled, load_body, store_body

BirthT = TypeVar("BirthT", AgentModelled, MachineModelled)


def read_agent_birth(site: str, agent: str, payload: bytes) -> AgentModelled | DecodeError:
    """The entry for a payload of `model`, or why it is none. Never raises."""
    model = decode_agent_model(payload)
    if isinstance(model, DecodeError):
        return model
    if model.agent != agent:
        return DecodeError(f"a birth certificate of {model.agent} on the topic of {agent}")
    return _storable(AgentModelled(site, agent, _document(payload)))


def read_machine_birth(site: str, agent: str, machine: str, payload: bytes) -> MachineModelled | DecodeError:
    """The entry for a payload of `model/{machine}`, or why it is none. Never raises."""
    model = decode_machine_model(payload)
    if isinstance(model, DecodeError):
        return model
    if model.machine != machine:
        return DecodeError(f"a birth certificate of {model.machine} on the topic of {machine}")
    return _storable(MachineModelled(site, agent, machine, _document(payload)))


def machine_digest(model: Mapping[str, Json]) -> str:
    """What tells two certificates of a machine apart, whichever run published them."""
    return agent_digest({key: value for key, value in model.items() if key != "epoch"})


def agent_digest(model: Mapping[str, Json]) -> str:
    """What tells two certificates of an agent apart."""
    return sha256(canonical(model)).hexdigest()


def _document(payload: bytes) -> Mapping[str, Json]:
    document = parse_object(payload)
    assert not isinstance(document, DecodeError), "it was decoded a line before"
    return document


def _storable(body: BirthT) -> BirthT | DecodeError:
    """`body`, unless the journal could not store it or read it back (a float, a lone surrogate, too long)."""
    try:
        load_body(store_body(body))
    except ValueError as error:
        return DecodeError(f"cannot be journaled: {error}")
    return body
