"""What heads are made of: how far the journal has got, and how far each agent's chain in it.

Source: the outside contract, section 6; reliability invariant I-22.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Engine, LargeBinary, cast, func, select
from sqlalchemy.exc import DBAPIError

from edge_agent.wire.codec import DecodeError
from edge_agent.wire.event import EventKind
from edge_agent.wire.heads import AgentHead, AgentKey, HeldEvent
from edge_agent.wire.sealed import Sealed, unseal
from gateway.adapters.signatures import is_signed_by
from gateway.adapters.store_sql.chain_check import journal_end, note_key
from gateway.adapters.store_sql.schema import EPOCHS, JOURNAL
from gateway.domain.heads import Reach
from gateway.domain.journal import LINK_SEED, EntryKind
from gateway.ports import JournalUnavailable


def read_reach(readers: Engine) -> Reach:
    """The ends of the journal and of every agent's chain in it, in one short transaction (blocking).

    Raises `JournalUnavailable`.
    """
    try:
        with readers.connect() as connection:
            position, link = journal_end(connection)
            held = tuple(_held_events(connection))
            checkpoints = tuple(_checkpoints(connection))
    except DBAPIError as error:
        raise JournalUnavailable(str(error.orig)) from error
    return Reach(position, link or LINK_SEED, held, checkpoints)


def _held_events(connection: Connection) -> Iterator[HeldEvent]:
    """The newest event of each agent."""
    newest = select(func.max(EPOCHS.c.last_position)).group_by(EPOCHS.c.site, EPOCHS.c.agent)
    for position in sorted(connection.execute(newest).scalars()):
        event = _event_at(connection, position)
        if event is not None:
            stamp = event.stamp
            yield HeldEvent(stamp.site, stamp.agent, stamp.epoch, stamp.seq, event.hash, stamp.at)


def _checkpoints(connection: Connection) -> Iterator[AgentHead]:
    """The newest checkpoint of each agent, with the published key that it is signed with."""
    agents = select(EPOCHS.c.site, EPOCHS.c.agent).distinct().order_by(EPOCHS.c.site, EPOCHS.c.agent)
    for site, name in connection.execute(agents).all():
        agent = (site, name)
        newest = select(func.max(JOURNAL.c.position)).where(
            JOURNAL.c.site == agent[0],
            JOURNAL.c.agent == agent[1],
            JOURNAL.c.event_kind == EventKind.CHECKPOINT.value,
        )
        position = connection.execute(newest).scalar()
        event = None if position is None else _event_at(connection, position)
        if event is not None:
            yield from _signed_heads(event, _published_keys(connection, agent))


def _published_keys(connection: Connection, agent: AgentKey) -> Sequence[str]:
    """The keys of one agent; by the index, so that a head costs no walk over the journal."""
    query = select(cast(JOURNAL.c.payload, LargeBinary)).where(
        JOURNAL.c.site == agent[0],
        JOURNAL.c.agent == agent[1],
        JOURNAL.c.event_kind.is_(None),
        JOURNAL.c.kind == EntryKind.AGENT_MODELLED.value,
    )
    keys: dict[AgentKey, set[str]] = {}
    for payload in connection.execute(query).scalars():
        note_key(keys, payload)
    return sorted(keys.get(agent, ()))


def _signed_heads(event: Sealed, keys: Sequence[str]) -> Iterator[AgentHead]:
    stamp, signature = event.stamp, str(event.document.get("signature"))
    for key in keys:
        head = AgentHead(
            stamp.site, stamp.agent, stamp.epoch, stamp.seq - 1, stamp.prev, stamp.at, key, signature
        )
        if is_signed_by(key, head.message, signature):
            yield head


def _event_at(connection: Connection, position: int) -> Sealed | None:
    """The event at a position; None for one that somebody spoilt, which `verify` names."""
    query = select(cast(JOURNAL.c.payload, LargeBinary)).where(JOURNAL.c.position == position)
    payload = connection.execute(query).scalar()
    event = DecodeError("no such entry") if payload is None else unseal(payload)
    return None if isinstance(event, DecodeError) else event
