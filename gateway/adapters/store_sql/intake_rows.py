"""Rows of what agents send beside their streams: birth certificates, presence, and what was refused."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select

from edge_agent.wire.codec import DECODE_MAX_BYTES
from edge_agent.wire.topics import parse
from gateway.adapters.store_sql.rows_base import RowsBase
from gateway.adapters.store_sql.schema import MODELS, PRESENCES, QUARANTINE
from gateway.domain.birth import agent_digest, machine_digest
from gateway.domain.journal import AgentModelled, Entry, MachineModelled, MachineRemoved, PresenceChanged

QUARANTINE_MAX = 2000
"""Refused payloads that are kept; 64 KiB each at most, so 128 MiB in all. The oldest make room."""

TOPIC_MAX_CHARS = 512
"""A foreign topic is kept up to here: an MQTT topic may be 64 KiB, ours are below 200."""

_FIND_DIGEST = select(MODELS.c.digest).where(
    MODELS.c.site == bindparam("site"),
    MODELS.c.agent == bindparam("agent"),
    MODELS.c.machine == bindparam("machine"),
)
"""Built once: every birth certificate is compared with what is held."""


class SqlIntakeRows(RowsBase):
    """`gateway.ports.IntakeRows` over SQL."""

    def note_entry(self, entry: Entry) -> None:
        """Keep birth certificates and presences in step."""
        super().note_entry(entry)
        match entry.body:
            case AgentModelled(site=site, agent=agent, model=model):
                self._note_model(site, agent, "", agent_digest(model))
            case MachineModelled(site=site, agent=agent, machine=machine, model=model):
                self._note_model(site, agent, machine, machine_digest(model))
            case MachineRemoved(site=site, agent=agent, machine=machine):
                self._connection.execute(delete(MODELS).where(self._model_key(site, agent, machine)))
            case PresenceChanged() as presence:
                self._note_presence(presence)
            case _:
                pass

    def put_in_quarantine(self, topic: str, payload: bytes, reason: str) -> int:
        """Keep a refused payload raw, the oldest making room; returns its id."""
        address = parse(topic)
        newest: int | None = self._connection.execute(select(func.max(QUARANTINE.c.id))).scalar()
        number = (newest or 0) + 1
        row = {
            "id": number,
            "received_at_ms": self.now_ms,
            "topic": topic[:TOPIC_MAX_CHARS],
            "reason": reason,
        }
        row |= {"site": address and address.site, "agent": address and address.agent}
        row |= {"payload": payload[:DECODE_MAX_BYTES]}
        self._connection.execute(insert(QUARANTINE), row)
        self._connection.execute(delete(QUARANTINE).where(QUARANTINE.c.id <= number - QUARANTINE_MAX))
        return number

    def model_digest(self, site: str, agent: str, machine: str | None) -> str | None:
        """The digest of the last journaled birth certificate of an agent (`machine` None) or of one of its machines."""
        key = {"site": site, "agent": agent, "machine": machine or ""}
        digest: str | None = self._connection.execute(_FIND_DIGEST, key).scalar()
        return digest

    def modelled_machines(self, site: str, agent: str) -> Sequence[str]:
        """The machines of this agent that have a birth certificate."""
        query = select(MODELS.c.machine).where(MODELS.c.site == site, MODELS.c.agent == agent)
        return [
            row.machine for row in self._connection.execute(query.order_by(MODELS.c.machine)) if row.machine
        ]

    def online_agents(self) -> Sequence[tuple[str, str]]:
        """Site and agent of those whose last journaled presence is online."""
        query = select(PRESENCES.c.site, PRESENCES.c.agent).where(PRESENCES.c.online)
        return [(row.site, row.agent) for row in self._connection.execute(query)]

    def known_agents(self) -> Sequence[tuple[str, str]]:
        """Site and agent of all that were ever heard."""
        query = select(PRESENCES.c.site, PRESENCES.c.agent)
        return [(row.site, row.agent) for row in self._connection.execute(query)]

    def _model_key(self, site: str, agent: str, machine: str) -> ColumnElement[bool]:
        return (MODELS.c.site == site) & (MODELS.c.agent == agent) & (MODELS.c.machine == machine)

    def _note_model(self, site: str, agent: str, machine: str, digest: str) -> None:
        self._upsert(MODELS, [{"site": site, "agent": agent, "machine": machine, "digest": digest}])

    def _note_presence(self, presence: PresenceChanged) -> None:
        key = {"site": presence.site, "agent": presence.agent}
        values = {"online": presence.online, "epoch": presence.epoch, "since_ms": self.now_ms}
        self._upsert(PRESENCES, [{**key, **values}])
