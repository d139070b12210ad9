"""What can be done to the stand-in plant: one vocabulary for scenarios, the control port, people and tests.

An act is written as a mapping, `{do: open, machine: mixer-18, guard: door-1}`, in YAML and JSON alike; `read_act`
turns it into an `Act` and says of a wrong one which field is wrong and what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from simulators.faults import FaultKind
from simulators.plant import DEVICES, GUARDS, MACHINES, GuardKind, GuardSpec, Mode

DELAY_MS_MAX: Final = 60_000  # a minute: far beyond any timeout


class Verb(StrEnum):
    """Everything that can happen. Values are the words of scenario files."""

    START = "start"  # press and release the start button
    STOP = "stop"
    RESET = "reset"  # press and release the reset button
    MODE = "mode"  # turn the selector
    WELD = "weld"  # the contactor sticks closed from its next closing (or now) on
    UNWELD = "unweld"
    SLIP = "slip"  # the belt lags its drum by `percent`
    OPEN = "open"  # door; a curtain's field is broken
    CLOSE = "close"
    PRESS = "press"  # E-stop
    RELEASE = "release"
    PULL = "pull"  # pull-cord
    RESET_CORD = "reset-cord"
    UNLOCK = "unlock"  # ask for the guard lock's release: granted at standstill
    LOCK = "lock"
    AUX_RELEASE = "aux-release"  # force the bolt with the tool
    AUX_RESTORE = "aux-restore"
    BYPASS = "bypass"  # turn the declared bypass key
    DEFEAT = "defeat"  # jumper in the safety circuit: the guard stops nothing, its channels still tell
    RESTORE = "restore"
    TAPE = "tape"  # a spare actuator on the switch: every channel says closed for ever
    UNTAPE = "untape"
    CHATTER = "chatter"  # one channel opens and closes at 50 Hz while `on`
    STICK = "stick"  # one channel stays at `value`
    UNSTICK = "unstick"
    PLC_STOP = "plc-stop"  # the program stands, Modbus answers with the old image
    PLC_RUN = "plc-run"
    UNPLUG = "unplug"  # the unit falls silent
    PLUG = "plug"
    ABSENT = "absent"  # the input module is gone: all its bits read 1
    PRESENT = "present"
    REFUSE = "refuse"  # the endpoint's port is closed for every unit
    LISTEN = "listen"
    SPOIL = (
        "spoil"  # from now on `fault` strikes `percent` of the replies on the wire (see `simulators.faults`)
    )
    HEAL = "heal"  # the wire is good again


@dataclass(frozen=True, slots=True)
class Act:
    """One thing done; fields that its verb does not take stay at their defaults. Channels count from 1."""

    verb: Verb
    machine: str = ""
    guard: str = ""
    device: str = ""
    channel: int = 1
    on: bool = False
    mode: Mode = Mode.AUTO
    percent: int = 0
    fault: FaultKind | None = None
    delay_ms: int = 0


class BadActError(ValueError):
    """A mapping that is no act. `field` is the offending key ("" for the whole), the text says how to mend it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


_MACHINE: Final = ("machine",)
_GUARD: Final = ("machine", "guard")
_DEVICE: Final = ("device",)
FIELDS: Final[dict[Verb, tuple[str, ...]]] = {
    **dict.fromkeys((Verb.START, Verb.STOP, Verb.RESET, Verb.WELD, Verb.UNWELD), _MACHINE),
    Verb.MODE: (*_MACHINE, "mode"),
    Verb.SLIP: (*_MACHINE, "percent"),
    **dict.fromkeys((Verb.OPEN, Verb.CLOSE, Verb.PRESS, Verb.RELEASE, Verb.PULL, Verb.RESET_CORD), _GUARD),
    **dict.fromkeys((Verb.UNLOCK, Verb.LOCK, Verb.AUX_RELEASE, Verb.AUX_RESTORE), _GUARD),
    **dict.fromkeys((Verb.DEFEAT, Verb.RESTORE, Verb.TAPE, Verb.UNTAPE), _GUARD),
    Verb.BYPASS: (*_GUARD, "on"),
    Verb.CHATTER: (*_GUARD, "channel", "on"),
    Verb.STICK: (*_GUARD, "channel", "on"),
    Verb.UNSTICK: (*_GUARD, "channel"),
    **dict.fromkeys(
        (Verb.PLC_STOP, Verb.PLC_RUN, Verb.UNPLUG, Verb.PLUG, Verb.ABSENT, Verb.PRESENT), _DEVICE
    ),
    Verb.REFUSE: (),
    Verb.LISTEN: (),
    Verb.SPOIL: ("fault", "percent", "delay_ms"),
    Verb.HEAL: (),
}
_DOORS: Final = frozenset({GuardKind.INTERLOCKED_DOOR, GuardKind.LOCKED_DOOR, GuardKind.LIGHT_CURTAIN})
_KINDS: Final[dict[Verb, frozenset[GuardKind]]] = {
    **dict.fromkeys((Verb.OPEN, Verb.CLOSE), _DOORS),
    **dict.fromkeys((Verb.PRESS, Verb.RELEASE), frozenset({GuardKind.ESTOP})),
    **dict.fromkeys((Verb.PULL, Verb.RESET_CORD), frozenset({GuardKind.PULL_CORD})),
    **dict.fromkeys(
        (Verb.UNLOCK, Verb.LOCK, Verb.AUX_RELEASE, Verb.AUX_RESTORE), frozenset({GuardKind.LOCKED_DOOR})
    ),
}


def read_act(fields: Mapping[str, object]) -> Act:
    """The act a mapping means. Raises BadActError naming the first wrong field."""
    verb = Verb(_one_of("do", fields.get("do"), Verb))
    wanted = FIELDS[verb]
    for field in fields:
        if field != "do" and field not in wanted:
            takes = ", ".join(wanted) or "nothing else"
            raise BadActError(field, f"`{verb}` takes no `{field}` — it takes {takes}")
    for field in wanted:
        if field not in fields:
            raise BadActError("", f"`{verb}` needs `{field}` — add it")
    machine = guard = device = ""
    if "machine" in wanted:
        machine = _one_of("machine", fields["machine"], MACHINES)
    if "guard" in wanted:
        known = [guard_id for machine_id, guard_id in GUARDS if machine_id == machine]
        guard = _one_of("guard", fields["guard"], known)
        _check_guard(verb, GUARDS[machine, guard])
    if "device" in wanted:
        device = _one_of("device", fields["device"], DEVICES)
    return Act(
        verb=verb,
        machine=machine,
        guard=guard,
        device=device,
        channel=_channel(fields["channel"], GUARDS[machine, guard]) if "channel" in wanted else 1,
        on=_boolean("on", fields["on"]) if "on" in wanted else False,
        mode=Mode(_one_of("mode", fields["mode"], Mode)) if "mode" in wanted else Mode.AUTO,
        percent=_percent(fields["percent"]) if "percent" in wanted else 0,
        fault=FaultKind(_one_of("fault", fields["fault"], FaultKind)) if "fault" in wanted else None,
        delay_ms=_delay(fields["delay_ms"]) if "delay_ms" in wanted else 0,
    )


def _check_guard(verb: Verb, guard: GuardSpec) -> None:
    kinds = _KINDS.get(verb)
    if kinds is not None and guard.kind not in kinds:
        fitting = ", ".join(sorted(kinds))
        raise BadActError(
            "guard", f"`{verb}` does not fit a guard of kind {guard.kind} — it is for {fitting}"
        )
    if verb is Verb.BYPASS and guard.bypass_at is None:
        raise BadActError("guard", f"`{guard.id}` has no bypass key — choose a door or a curtain")


def _one_of(field: str, value: object, known: Iterable[str]) -> str:
    names = [str(name) for name in known]
    if isinstance(value, str) and value in names:
        return value
    if value is None:
        raise BadActError("", f"`{field}` is missing — add one of {', '.join(names)}")
    near = difflib.get_close_matches(str(value), names, 1)
    hint = f"did you mean `{near[0]}`?" if near else f"choose one of {', '.join(names)}"
    raise BadActError(field, f"`{field}` cannot be `{value}` — {hint}")


def _boolean(field: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise BadActError(field, f"`{field}` cannot be `{value}` — write true or false")


def _channel(value: object, guard: GuardSpec) -> int:
    count = len(guard.channels)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= count:
        return value
    raise BadActError("channel", f"`channel` cannot be `{value}` — `{guard.id}` has channels 1 to {count}")


def _percent(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100:
        return value
    raise BadActError("percent", f"`percent` cannot be `{value}` — write a whole number from 0 to 100")


def _delay(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DELAY_MS_MAX:
        return value
    raise BadActError(
        "delay_ms", f"`delay_ms` cannot be `{value}` — write whole milliseconds, 0 to {DELAY_MS_MAX}"
    )
