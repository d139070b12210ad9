"""Protocols with one rule left out or bent: each must break a promise, or the model proves less than it says."""

from __future__ import annotations

from collections.abc import Sequence

from tests.model.protocol import Heard, Protocol, Verdict
from tests.model.values import Ack, Agent, Beat, Event, Gap, Journal, ack_of, agent_of, beat_of


class AcksBeforeItHolds(Protocol):
    """The gateway answers with what came, not with what it holds."""

    def answer(self, journal: Journal, beat: Beat | None, judged: Sequence[tuple[Event, Verdict]]) -> Ack:
        del journal, beat
        event = judged[-1][0]
        return ack_of(event.epoch, event, reset=False)


class TrustsTheBroker(Protocol):
    """The agent takes the broker's PUBACK for an ack."""

    def sent(self, agent: Agent) -> Agent:
        sent = super().sent(agent)
        place = agent.next
        return agent_of(sent.chain, sent.first, max(sent.ever, place), sent.gone, place, sent.next)


class AcceptsOutOfOrder(Protocol):
    """The gateway journals whatever is new."""

    def judge(self, journal: Journal, beat: Beat | None, event: Event) -> tuple[Verdict, tuple[Gap, ...]]:
        verdict, gaps = super().judge(journal, beat, event)
        return (Verdict.NEXT if verdict is Verdict.AHEAD else verdict), gaps


class IgnoresResets(Protocol):
    """The agent only ever goes forward."""

    def move(self, agent: Agent, place: int, *, may_go_back: bool) -> tuple[Agent, Heard]:
        del may_go_back
        return super().move(agent, place, may_go_back=False)


class KeepsItsEpoch(Protocol):
    """A store goes on in the epoch that it was in, also when it is an image that was restored."""

    def begin_epoch(self, agent: Agent, epoch: int, twist: int) -> Agent:
        return super().mint(agent, twist) if agent.chain else super().begin_epoch(agent, epoch, twist)


class ComparesNoHash(Protocol):
    """The agent looks for an acked event by its key alone."""

    def place(self, agent: Agent, event: Event) -> int | None:
        return next((own.n for own in agent.chain if own.key == event.key), None)


class StatesNoLoss(Protocol):
    """The gateway goes on after a hole that will not fill, and says nothing."""

    def judge(self, journal: Journal, beat: Beat | None, event: Event) -> tuple[Verdict, tuple[Gap, ...]]:
        return super().judge(journal, beat, event)[0], ()


class LooksAtNoLink(Protocol):
    """The gateway takes an event that follows a key which it holds, whatever the hash: the page's first wording."""

    def linked(
        self, journal: Journal, beat: Beat | None, event: Event, verdict: Verdict
    ) -> tuple[Verdict, tuple[Gap, ...]]:
        del journal, beat, event
        return verdict, ()


class HidesWhatItCannotRead(Protocol):
    """The agent's health shows no acked where that event's row is damaged."""

    def beat(self, agent: Agent) -> Beat:
        right = super().beat(agent)
        shown = None if agent.acked in agent.gone else right.acked
        return beat_of(right.epoch, shown, right.first, right.gone)


class InsistsOnItsOwnHistory(Protocol):
    """The gateway answers a conflict by its own hash, also in an epoch that the agent has left."""

    def answer(self, journal: Journal, beat: Beat | None, judged: Sequence[tuple[Event, Verdict]]) -> Ack:
        event, verdict = judged[-1]
        if verdict is Verdict.CONFLICT:
            return ack_of(event.epoch, journal.held[event.key], reset=False)
        return super().answer(journal, beat, judged)
