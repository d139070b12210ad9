"""Scenarios: scripted timelines of what happens in the cell, in YAML files people can read and write.

    labels: {zh: 运行中开门, en: Door opened while running}
    seed: 18                 # of bounces, skews and people; --seed overrides
    people: false            # true puts an operator at each machine, beside the script
    loop: true               # needs length_s: the script starts again after that long
    length_s: 60
    steps:                   # in order of time; what can be done stands in `simulators.acts`
      - {at_s: 1, do: start, machine: mixer-18}
      - {at_s: 12, do: open, machine: mixer-18, guard: door-1}

A file is read by the project's configuration reader, so every mistake is told at once with its line and column.
`Performance` plays a scenario on a cell, still in virtual time only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, JsonValue, model_validator

from edge_agent.configfile import Document, Problem, Section, fault, in_order, load, validate
from simulators.acts import Act, BadActError, Verb, read_act
from simulators.cell import Cell

SHIPPED: Final = Path(__file__).parent / "scenarios"
STEPS_MAX: Final = 10_000  # a day of one act every nine seconds
LENGTH_S_MAX: Final = 7 * 24 * 3600.0  # a week


class Labels(Section):
    """What a scenario is called, in both languages."""

    zh: str = Field(min_length=1, max_length=80)
    en: str = Field(min_length=1, max_length=80)


class ScenarioFile(Section):
    """A scenario as it stands in its file; steps are read one by one afterwards."""

    labels: Labels
    seed: int = Field(default=0, ge=0, lt=2**63)
    people: bool = False
    loop: bool = False
    length_s: float | None = Field(default=None, gt=0, le=LENGTH_S_MAX)
    steps: tuple[dict[str, JsonValue], ...] = Field(default=(), max_length=STEPS_MAX)

    @model_validator(mode="after")
    def _loop_has_length(self) -> ScenarioFile:
        if self.loop and self.length_s is None:
            raise fault("the scenario loops but has no length", "add `length_s`: when to start again")
        return self


@dataclass(frozen=True, slots=True)
class Step:
    """One act and when it is done, in ms from the start of a round."""

    at_ms: int
    act: Act


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario. `length_ms` is null when it does not loop."""

    name: str
    labels: dict[str, str]
    seed: int
    people: bool
    length_ms: int | None
    steps: tuple[Step, ...]

    @property
    def spoils(self) -> bool:
        """Whether it ever does something to the wire."""
        return any(step.act.verb is Verb.SPOIL for step in self.steps)


def shipped() -> dict[str, Path]:
    """The scenarios that come with the project, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_scenario(path: Path) -> Scenario | list[Problem]:
    """The scenario in `path`, or everything that is wrong with it."""
    document = load(path, os.environ)
    if isinstance(document, list):
        return document
    file = validate(ScenarioFile, document)
    if isinstance(file, list):
        return file
    steps, problems = _read_steps(document, file)
    if problems:
        return in_order(problems)
    return Scenario(
        name=path.stem,
        labels={"zh": file.labels.zh, "en": file.labels.en},
        seed=file.seed,
        people=file.people,
        length_ms=round(file.length_s * 1000) if file.loop and file.length_s is not None else None,
        steps=tuple(steps),
    )


def _read_steps(document: Document, file: ScenarioFile) -> tuple[list[Step], list[Problem]]:
    steps: list[Step] = []
    problems: list[Problem] = []
    end_s = file.length_s if file.length_s is not None else LENGTH_S_MAX
    before_s = 0.0
    for index, fields in enumerate(file.steps):
        at_s = fields.get("at_s")
        path = ("steps", index, "at_s")
        if not isinstance(at_s, int | float) or isinstance(at_s, bool) or not math.isfinite(at_s):
            problems.append(
                document.problem(path, "the step has no time", "add `at_s`: seconds from the start")
            )
        elif not before_s <= at_s < end_s:
            what = f"`at_s` is {at_s:g}, outside {before_s:g} to {end_s:g}"
            problems.append(document.problem(path, what, "write steps in order of time, before `length_s`"))
        else:
            before_s = at_s
        try:
            act = read_act({key: value for key, value in fields.items() if key != "at_s"})
        except BadActError as error:
            what, _, mend = str(error).partition(" — ")
            where = ("steps", index, error.field) if error.field else ("steps", index)
            problems.append(document.problem(where, what, mend))
        else:
            steps.append(Step(round(before_s * 1000), act))
    return steps, problems


@dataclass(frozen=True, slots=True)
class Refused:
    """A step that could not be done, as a locked door that does not open."""

    at_ms: int
    act: Act
    reason: str


class Performance:
    """A scenario played on a cell of its own."""

    def __init__(self, scenario: Scenario, *, seed: int | None = None) -> None:
        self.seed = scenario.seed if seed is None else seed
        self.cell = Cell(self.seed, people=scenario.people)
        self._coming = timeline(scenario)
        self._next = next(self._coming, None)

    def advance(self, to_ms: int) -> list[Refused]:
        """Let time pass up to `to_ms`, doing the steps on the way; returns those that could not be done."""
        refused: list[Refused] = []
        while self._next is not None and self._next.at_ms <= to_ms:
            step, self._next = self._next, next(self._coming, None)
            self.cell.advance(step.at_ms)
            if (reason := self.cell.act(step.act)) is not None:
                refused.append(Refused(step.at_ms, step.act, reason))
        self.cell.advance(to_ms)
        return refused


def timeline(scenario: Scenario) -> Iterator[Step]:
    """The steps with absolute times, for ever when the scenario loops."""
    yield from scenario.steps
    if scenario.length_ms is None or not scenario.steps:
        return
    start_ms = 0
    while True:
        start_ms += scenario.length_ms
        for step in scenario.steps:
            yield Step(start_ms + step.at_ms, step.act)
