"""Two hosts on one machine: the plant floor (agent and controllers) in a network namespace, the server room outside.

    server room 10.a.b.1 ── veth ── 10.a.b.2 plant floor (namespace gw-chaos-PID)

The link between them can be cut, made one-way, lossy or slow; sockets into the namespace are made by entering it with
one thread. Without root everything runs on one host, and the faults of the link are not to be had.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from pathlib import Path
from typing import Final, Self

from simulators.servers import find_nft
from tests.server_process import require

_CLONE_NEWNET: Final = 0x4000_0000
ANSWER_S: Final = 60.0
"""The plant may be frozen for twenty seconds, and slow on a loaded machine."""

_NAMESPACES: Final = Path("/run/netns")


class NoRoomError(Exception):
    """The machine refuses what a fault needs."""


def run(*command: str, given: str = "", env: dict[str, str] | None = None) -> None:
    """Run a command of the system. Raises NoRoomError with what it said."""
    done = subprocess.run(command, input=given, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoRoomError(f"{' '.join(command)}: {done.stderr.strip()}")


class Place:
    """Where agent and controllers run: here, on the same host as everything else."""

    is_apart = False
    server_room = "127.0.0.1"
    """The address at which the plant floor finds the broker."""

    def command(self, command: list[str]) -> list[str]:
        """The command that runs `command` there."""
        return command

    def connect(self, port: int) -> socket.socket:
        """A connection to 127.0.0.1:`port` there."""
        return socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)

    def enter(self) -> None:
        """Take the calling thread there, for good."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class PlantFloor(Place):
    """A network namespace of its own, joined to the server room by one link."""

    is_apart = True

    def __init__(self) -> None:
        number = os.getpid()
        self.name = f"gw-chaos-{number}"
        self._near, self._far = f"gwc{number}s", f"gwc{number}f"
        net = f"10.{64 + number // 256 % 64}.{number % 256}"
        self.server_room = f"{net}.1"
        self._floor = f"{net}.2"

    def __enter__(self) -> Self:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
        run("ip", "addr", "add", f"{self.server_room}/24", "dev", self._near)
        run("ip", "link", "set", self._near, "up")
        run("ip", "-n", self.name, "addr", "add", f"{self._floor}/24", "dev", self._far)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "link", "set", self._far, "up")
        return self

    def __exit__(self, *_: object) -> None:
        run("ip", "netns", "del", self.name)

    def command(self, command: list[str]) -> list[str]:
        return ["nsenter", f"--net={_NAMESPACES / self.name}", *command]

    def connect(self, port: int) -> socket.socket:
        with Path("/proc/thread-self/ns/net").open() as here:
            self.enter()
            try:
                return super().connect(port)
            finally:
                _set_namespace(here.fileno())

    def enter(self) -> None:
        with (_NAMESPACES / self.name).open() as there:
            _set_namespace(there.fileno())

    def cut(self) -> None:
        """Take the link down."""
        run("ip", "-n", self.name, "link", "set", self._far, "down")

    def swallow(self, *, upwards: bool) -> None:
        """Packets of one direction vanish, without an error at the sender."""
        self._queue(upwards, "blackhole")

    def slow(self, kbit: int) -> None:
        """The link carries so many kilobits per second, upwards."""
        self._queue(True, "tbf", "rate", f"{kbit}kbit", "burst", "4kb", "latency", "2000ms")

    def lose(self, percent: int) -> None:
        """So many of a hundred packets get lost on their way down, acknowledgements among them."""
        rules = (
            "table ip chaos {\n chain in {\n type filter hook input priority 0;\n"
            f" iif != lo numgen random mod 100 < {percent} drop\n }}\n}}\n"
        )
        self._filter(rules)

    def heal(self) -> None:
        """The link is good again."""
        run("ip", "-n", self.name, "link", "set", self._far, "up")
        for tc, device in (("-n", self.name), self._far), ((), self._near):
            subprocess.run(
                ["tc", *tc, "qdisc", "del", "dev", device, "root"], capture_output=True, check=False
            )
        if find_nft() is not None:
            self._filter("flush ruleset\n")

    def _filter(self, rules: str) -> None:
        nft = require(find_nft(), "nft")
        run(
            "nsenter",
            f"--net={_NAMESPACES / self.name}",
            str(nft.path),
            "-f",
            "-",
            given=rules,
            env=nft.environment(),
        )

    def _queue(self, upwards: bool, *discipline: str) -> None:
        where = ["-n", self.name] if upwards else []
        device = self._far if upwards else self._near
        run("tc", *where, "qdisc", "replace", "dev", device, "root", *discipline)


def _set_namespace(namespace: int) -> None:
    """Take the calling thread into a network namespace (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise NoRoomError(f"setns: {os.strerror(ctypes.get_errno())}")
