"""Crash at every system call of a short run, or let that call fail, and look at what is left.

`sweep` is the idea of CrashMonkey without a block driver: bugs of crash consistency show right after a call that orders
or persists, so a short workload is killed at its first `fdatasync`, then at its second, and so on to the last; likewise
at each `pwrite64`, `unlink`, `ftruncate`. strace takes hold of a child that has stopped itself before its first call,
and injects. What must hold after each: everything that the child said was committed is there, the file is sound, the
next run opens it.

    with CrashBench(folder) as bench:
        tally = bench.sweep("agent", "fdatasync")     # Tally(points=17, lost=0, corrupt=0, …)

Source: reliability invariants I-1, I-3, fault matrix rows 2 and 4; Mohan et al., Finding Crash-Consistency Bugs, OSDI 2018.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from simulators.servers import find_strace
from tests.crash_workloads import ACKED, WORKLOADS
from tests.server_process import require

SYSCALLS = ("fdatasync", "pwrite64", "unlink", "ftruncate")
"""What SQLite and the stores persist with."""

TRACE = "trace.txt"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """One run: its exit code (minus the signal that ended it), what it said was committed, what it complained of."""

    exit_code: int
    acked: list[str]
    complaints: list[str]
    folder: Path

    @property
    def was_hit(self) -> bool:
        """Whether there was such a call to inject into."""
        return "INJECTED" in self.calls

    @property
    def hit_folder(self) -> bool:
        """Whether it was a folder's synchronisation that was hit: SQLite passes over an error of it, as some file systems
        cannot do it at all."""
        return (
            re.search(rf"fdatasync\(\d+<{re.escape(str(self.folder))}>\) .*INJECTED", self.calls) is not None
        )

    @property
    def calls(self) -> str:
        """What strace saw."""
        return (self.folder / TRACE).read_text()


@dataclass
class Tally:
    """One sweep: how many calls there were to crash at, and at how many of them something went wrong."""

    workload: str
    syscall: str
    points: int = 0
    lost: int = 0
    corrupt: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, point: int, problems: Sequence[str]) -> None:
        """Count what one crash left behind."""
        self.points += 1
        self.lost += any(problem.startswith("lost") for problem in problems)
        self.corrupt += any(not problem.startswith("lost") for problem in problems)
        self.problems += [f"{self.workload} {self.syscall} {point}: {problem}" for problem in problems]


class CrashBench:
    """Children of one nursery, each run in a fresh copy of what its workload prepared."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._strace = require(find_strace(), "strace")
        self._nursery: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.crash_workloads"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._nursery.kill()
        self._nursery.communicate()

    def sweep(self, workload: str, syscall: str, *, every: int = 1, first: int = 1) -> Tally:
        """Kill `workload` at its `first`, `first + every`, … call of `syscall`, until a run comes through."""
        tally = Tally(workload, syscall)
        point = first
        while (run := self.run(workload, f"{syscall}:signal=SIGKILL:when={point}")).exit_code != 0:
            if run.exit_code != -signal.SIGKILL:
                tally.problems.append(f"{workload} {syscall} {point}: ended with {run.exit_code} by itself")
            tally.note(point, self.check(workload, run))
            point += every
        return tally

    def run(self, workload: str, inject: str, *, trace: str = "") -> Run:
        """One run with one injection (strace's `-e inject=…`); its calls, and those of `trace`, are in `calls`."""
        folder = self._fresh(workload)
        nursery_in, nursery_out = self._pipes()
        nursery_in.write(f"{workload} {folder}\n")
        nursery_in.flush()
        child = int(nursery_out.readline())
        syscalls = ",".join(filter(None, (inject.split(":", maxsplit=1)[0], trace)))
        command = [str(self._strace.path), "-f", "-y", "-o", str(folder / TRACE), "-p", str(child)]
        command += ["-e", f"trace={syscalls}", "-e", f"inject={inject}"]
        with subprocess.Popen(
            command, env=self._strace.environment(), stderr=subprocess.PIPE, text=True
        ) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            if "attached" not in said:
                os.kill(child, signal.SIGKILL)
                raise AssertionError(f"strace cannot trace (is ptrace allowed here?): {said}")
            os.kill(child, signal.SIGCONT)
            exit_code = int(nursery_out.readline())
            tracer.communicate()
        said_lines = (folder / ACKED).read_text().splitlines() if (folder / ACKED).exists() else []
        return Run(
            exit_code,
            [line for line in said_lines if not line.startswith("#")],
            [line.removeprefix("# ") for line in said_lines if line.startswith("#")],
            folder,
        )

    def check(self, workload: str, run: Run) -> list[str]:
        """What is wrong with what a run left behind; whatever goes wrong in looking is wrong, too."""
        try:
            return WORKLOADS[workload].check(run.folder, run.acked)
        except Exception as error:  # noqa: BLE001 — any failure of the next start is a finding
            return [f"corrupt: the next start fails: {type(error).__name__}: {error}"]

    def _fresh(self, workload: str) -> Path:
        template, folder = self._folder / f"{workload}-before", self._folder / workload
        if not template.exists():
            template.mkdir(parents=True)
            WORKLOADS[workload].prepare(template)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        return folder

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        return self._nursery.stdin, self._nursery.stdout


def main() -> int:
    """The full sweep of both stores; prints a line for each call swept over."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("var/crash-points")
    failed = 0
    with CrashBench(folder) as bench:
        for workload in WORKLOADS:
            for syscall in SYSCALLS:
                tally = bench.sweep(workload, syscall)
                print(
                    f"{workload:12} {syscall:10} points={tally.points:3} lost={tally.lost} corrupt={tally.corrupt}"
                )
                for problem in tally.problems:
                    print(f"    {problem}")
                failed += bool(tally.problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
