"""Minting: what turns a body into the next event of a store's chain.

A `Head` is the end of the chain; minting gives the event and the head after it, and changes nothing, so that a
transaction that fails leaves the chain where it was. Source: the outside contract, sections 3 and 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.domain.units import NS_PER_MS, MonoNs, UtcNs
from edge_agent.domain.wall import CLOCK_STEP_NS, WallPair, rfc3339
from edge_agent.wire.chain import checkpoint_message
from edge_agent.wire.codec import Stamp, seal
from edge_agent.wire.event import Body, Checkpoint, ClockState, Event, Priority, ViolationRaised


@dataclass(frozen=True, slots=True)
class Run:
    """Who writes: bound to the store at its creation (`site`, `agent`), stated at each start (the rest)."""

    site: str
    agent: str
    boot: str
    version: str
    config_hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the last event's place `n`, key, hash and label."""

    n: int
    epoch: str
    seq: int
    hash: str
    at: UtcNs


class Minter:
    """Mints the events of one run; `sign` gives base64 of the Ed25519 signature over a message."""

    def __init__(self, run: Run, sign: Callable[[bytes], str]) -> None:
        self._run = run
        self._sign = sign

    def mint(self, head: Head, body: Body, observed: MonoNs, pair: WallPair, events: list[Event]) -> Head:
        """Append the event that `body` becomes to `events`; the chain's new head.

        `at` labels the observation, but never goes below the highest label before it (the delivery protocol §2.8): a
        wall clock set back must not make the record run backwards. An event labelled so is no synchronised one; what
        a synchronised clock says of it stands in `wall`.
        """
        utc = pair.utc_at(observed)
        at = max(utc, head.at)
        is_ahead = at - utc > CLOCK_STEP_NS
        stamp = Stamp(
            site=self._run.site,
            agent=self._run.agent,
            epoch=head.epoch,
            seq=head.seq + 1,
            boot=self._run.boot,
            mono_ms=observed // NS_PER_MS,
            at=rfc3339(at),
            clock=ClockState.UNSYNCED if is_ahead else pair.clock,
            prev=head.hash,
            wall=rfc3339(utc) if is_ahead and pair.synced else None,
        )
        event = seal(stamp, body)
        events.append(event)
        return Head(head.n + 1, head.epoch, stamp.seq, event.hash, at)

    def checkpoint(self, head: Head) -> Checkpoint:
        """A signed statement that the chain ends in `head`."""
        message = checkpoint_message(self._run.site, self._run.agent, head.epoch, head.seq, head.hash)
        return Checkpoint(head.seq, head.hash, self._sign(message))


def is_p1_raise(event: Event) -> bool:
    """Whether this is the raise of a critical violation, which is signed in its own commit."""
    return isinstance(event.body, ViolationRaised) and event.body.priority is Priority.P1
