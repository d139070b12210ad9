"""What people were told of their acts stands: what was done is in the journal, and only one is first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.domain.journal import Act, OperatorCommand
from tests.simulation.findings import Check

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor


def audit(auditor: Auditor) -> None:
    """Judge a run that has healed; what an older journal had promised went with it."""
    since_ns = max(auditor.journal_mishaps, default=-1)
    commands = [entry.body for entry in auditor.entries if isinstance(entry.body, OperatorCommand)]
    done: dict[tuple[int, int], str] = {}
    for act in auditor.operators.acts:
        if act.at_ns <= since_ns:
            continue
        is_ack = act.note is None
        own = [
            command
            for command in commands
            if (command.alarm, command.who, command.note) == (act.alarm, act.who, act.note)
            and (command.act is Act.ACKNOWLEDGE) is is_ack
        ]
        if act.is_done and not own:
            auditor.find(Check.ACTS_STAND, f"{act} is not in the journal")
        if act.is_done and is_ack:
            first = done.setdefault((act.alarm, act.raised_n), act.who)
            if first != act.who:
                auditor.find(Check.ACTS_STAND, f"{act}: {first} had acknowledged it already")
        if not act.is_done and act.first is None:
            auditor.find(Check.ACTS_STAND, f"{act}: nobody was first")
