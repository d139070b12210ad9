"""Row 27: somebody gets the configuration wrong, and reloads."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.chaos.faults.base import Fault
from tests.chaos.plant import Plant
from tests.chaos.process import Part

Spoil = Callable[[str], str]

_ANY: Final[Sequence[tuple[str, Spoil]]] = (
    ("empty", lambda _: ""),
    ("no YAML", lambda text: text + "\n  {[\n"),
    ("an unknown key", lambda text: text + "\nguardss: {}\n"),
    ("a key twice", lambda text: text + "\nmqtt: {url: mqtt://127.0.0.1}\n"),
)
SPOILT: Final[Mapping[str, Sequence[tuple[str, Spoil]]]] = {
    "agent": (
        *_ANY,
        ("one bit twice", lambda text: text.replace("{at: plc-mixer/di/1}", "{at: plc-mixer/di/0}")),
        ("nothing to watch", lambda text: text.partition("machines:")[0]),
        ("another name", lambda text: text.replace("agent: gw-01", "agent: gw-77")),
    ),
    "gateway": (
        *_ANY,
        ("nobody to tell", lambda text: text.replace("to: [role:shift_manager]", "to: [nobody]")),
    ),
}
"""What each part must refuse: the running plan stays in force, and a start ends with exit code 2."""


class BadConfiguration(Fault):
    """A wrong file under load, asked to be taken up; then the right one again."""

    row = 27
    lasts_s = (3.0, 8.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._whose = draw.choice(sorted(SPOILT))
        self._what, self._spoil = draw.choice(SPOILT[self._whose])
        self._good = ""

    @property
    def name(self) -> str:
        return f"configuration of the {self._whose}: {self._what}"

    def _file(self, plant: Plant) -> Path:
        disk = plant.agent_disk if self._whose == "agent" else plant.gateway_disk
        return disk.folder / f"{self._whose}.yaml"

    def _part(self, plant: Plant) -> Part:
        return plant.parts[self._whose]

    def inject(self, plant: Plant) -> None:
        file = self._file(plant)
        self._good = file.read_text()
        bad = self._spoil(self._good)
        assert bad != self._good, f"there is nothing to spoil: {self._what}"
        file.write_text(bad)
        plant.write_out()
        self._part(plant).hang_up()

    def heal(self, plant: Plant) -> None:
        self._file(plant).write_text(self._good)
        plant.write_out()
        if (
            not plant.options.is_clock_steered
        ):  # what takes it up executes itself anew, without its steered clock
            self._part(plant).hang_up()
