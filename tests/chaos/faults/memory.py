"""Row 21: the kernel kills for want of memory."""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path
from typing import Final

from tests.chaos.faults.base import Fault, Need
from tests.chaos.plant import Plant

GROUPS: Final = Path("/sys/fs/cgroup/memory")
"""Memory control groups, version 1."""

ROOM_BYTES: Final = 16 * 1024
"""What is left to allocate: what a process held before it came into the group is not counted there."""

EMPTY_S: Final = 5.0


class OutOfMemory(Fault):
    """Agent, gateway or broker may allocate next to nothing more: the kernel kills it as soon as it needs to."""

    row = 21
    needs = frozenset({Need.ROOT, Need.MEMORY_GROUP})
    lasts_s = (2.0, 6.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._part = draw.choice(("agent", "gateway", "broker"))
        self._group = GROUPS / f"gw-chaos-{os.getpid()}"

    @property
    def name(self) -> str:
        return f"no memory for the {self._part}"

    def inject(self, plant: Plant) -> None:
        self._group.mkdir()
        (self._group / "memory.limit_in_bytes").write_text(str(ROOM_BYTES))
        part = plant.parts[self._part]
        with part.hold:
            self._move(part.pid, self._group)

    def heal(self, plant: Plant) -> None:
        events = (self._group / "memory.oom_control").read_text().split()
        plant.oom_kills += int(events[events.index("oom_kill") + 1])
        for pid in (self._group / "cgroup.procs").read_text().split():
            self._move(int(pid), GROUPS)
        deadline_s = time.monotonic() + EMPTY_S
        while self._group.exists():
            with contextlib.suppress(OSError):  # whoever was killed is not buried yet
                self._group.rmdir()
                return
            assert time.monotonic() < deadline_s, f"{self._group} does not empty"
            time.sleep(0.05)

    @staticmethod
    def _move(pid: int | None, group: Path) -> None:
        with contextlib.suppress(ProcessLookupError):
            if pid is not None:
                (group / "cgroup.procs").write_text(str(pid))


def has_groups() -> bool:
    """Whether memory control groups can be made here."""
    return os.access(GROUPS / "memory.limit_in_bytes", os.R_OK) and os.access(GROUPS, os.W_OK)
