"""Breadth first through every world within a bound; then backwards from rest, to find whence rest cannot be reached.

Theory of operation. `explore` numbers each world as it is first seen and keeps how it was reached, so the way to a
broken promise is a shortest one. Of the fair steps it also keeps where they lead. From the worlds at rest ("agreed")
it then goes backwards along fair steps alone: a world that is not met can never come to rest again without help, and
is a counterexample. Fair steps go on for ever and none is passed over for ever, so "can reach" here means "will". Rest lasts: it is defined
as nothing under way, nothing to send, and no health that the gateway would answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.model.invariants import is_agreed, wrong_now, wrong_when_agreed
from tests.model.world import FAIR, Model, Step, World

STATES_MAX = 12_000_000
"""More than this does not fit into the memory of a large machine (about 1 kB each)."""


@dataclass(slots=True)
class Graph:
    """Everything that was reached: worlds in order of distance, and whence each was first reached.

    Fair edges stand in the order of their sources: those of world n at `fair_starts[n]` to `fair_starts[n + 1]`.
    """

    worlds: list[World] = field(default_factory=list)
    parents: array[int] = field(default_factory=lambda: array("i"))
    steps: list[Step | None] = field(default_factory=list)
    fair_starts: array[int] = field(default_factory=lambda: array("i", [0]))
    fair_to: array[int] = field(default_factory=lambda: array("i"))
    agreed: list[int] = field(default_factory=list)
    transitions: int = 0

    def add(self, world: World, parent: int, step: Step | None) -> None:
        """A world that was not seen before."""
        self.worlds.append(world)
        self.parents.append(parent)
        self.steps.append(step)

    def way_to(self, number: int) -> list[tuple[Step | None, World]]:
        """A shortest way from the first world to this one, both included."""
        way: list[tuple[Step | None, World]] = []
        while number >= 0:
            way.append((self.steps[number], self.worlds[number]))
            number = self.parents[number]
        return way[::-1]


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A broken promise in words, and a shortest way to it."""

    wrong: str
    way: Sequence[tuple[Step | None, World]]

    def __str__(self) -> str:
        lines = [f"{self.wrong}, after {len(self.way) - 1} steps:"]
        for number, ((_, before), (step, after)) in enumerate(pairwise(self.way), 1):
            assert step is not None
            lines.append(f"{number:4} {told(step)}")
            lines += [f"       {line}" for line in changes(before, after)]
        return "\n".join(lines)


def explore(model: Model) -> tuple[Graph, Counterexample | None]:
    """The whole graph and None, or what was explored up to the first broken promise."""
    graph = Graph()
    first = model.first()
    numbers: dict[World, int] = {first: 0}
    graph.add(first, -1, None)
    for number, world in enumerate(_growing(graph.worlds)):
        wrong = wrong_now(world)
        if wrong is None and is_agreed(world, model.protocol):
            graph.agreed.append(number)
            wrong = wrong_when_agreed(world)
        if wrong is not None:
            return graph, Counterexample(wrong, graph.way_to(number))
        for step, after in model.steps(world):
            graph.transitions += 1
            reached = numbers.setdefault(after, len(graph.worlds))
            if reached == len(graph.worlds):
                graph.add(after, number, step)
            if step.act in FAIR:
                graph.fair_to.append(reached)
        graph.fair_starts.append(len(graph.fair_to))
        if number > STATES_MAX:
            raise OverflowError(f"more than {STATES_MAX} states: a smaller bound is needed")
    stuck = _stuck(graph)
    if stuck is not None:
        return graph, Counterexample("from here nothing comes to rest by itself", graph.way_to(stuck))
    return graph, None


def _growing(worlds: list[World]) -> Iterator[World]:
    number = 0
    while number < len(worlds):
        yield worlds[number]
        number += 1


def _stuck(graph: Graph) -> int | None:
    """The first world from which no fair steps lead to rest."""
    # who leads here? The fair edges, sorted by their ends, by counting
    size = len(graph.worlds)
    starts = array("i", bytes(4 * (size + 1)))
    for target in graph.fair_to:
        starts[target + 1] += 1
    for number in range(size):
        starts[number + 1] += starts[number]
    sources = array("i", bytes(4 * len(graph.fair_to)))
    room = array("i", starts)
    for source in range(size):
        for edge in range(graph.fair_starts[source], graph.fair_starts[source + 1]):
            target = graph.fair_to[edge]
            sources[room[target]] = source
            room[target] += 1
    can_rest = bytearray(size)
    pending = list(graph.agreed)
    for number in pending:
        can_rest[number] = 1
    while pending:
        number = pending.pop()
        for source in sources[starts[number] : starts[number + 1]]:
            if not can_rest[source]:
                can_rest[source] = 1
                pending.append(source)
    found = can_rest.find(0)
    return None if found < 0 else found


def told(step: Step) -> str:
    """One step in words."""
    is_nobodys = step.act.value.startswith(("the ", "a "))
    return step.act.value if is_nobodys else f"agent {step.agent + 1} {step.act.value}"


def changes(before: World, after: World) -> list[str]:
    """What is different now."""
    lines = [
        f"agent {number}: {agent}"
        for number, agent in enumerate(after.agents, 1)
        if number > len(before.agents) or before.agents[number - 1] is not agent
    ]
    if before.up != after.up:
        lines.append(f"to the gateway: {', '.join(map(str, after.up)) or 'nothing'}")
    for number, inbox in enumerate(after.inboxes, 1):
        if number > len(before.inboxes) or before.inboxes[number - 1] != inbox:
            lines.append(f"to agent {number}: {', '.join(map(str, inbox)) or 'nothing'}")
    if before.gateway.journal is not after.gateway.journal:
        lines.append(str(after.gateway.journal))
    if before.gateway.beat is not after.gateway.beat:
        lines.append(f"the gateway knows {after.gateway.beat or 'no health'}")
    return lines
