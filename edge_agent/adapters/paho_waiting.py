"""paho's thread waits by poll(2) instead of select(2), which knows no file descriptor above 1023.

An agent with a thousand links has more of them. Whichever its broker connection happens to get, paho's thread would end
with "filedescriptor out of range in select()", and every later attempt with it. The vendor has no setting for that; what
its module calls `select` is replaced, in this one place.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Protocol

import paho.mqtt.client


class _Waitable(Protocol):
    def fileno(self) -> int: ...


class _Poll:
    """As much of the module `select` as paho uses."""

    @staticmethod
    def select(
        readers: Sequence[_Waitable], writers: Sequence[_Waitable], _: object, timeout_s: float
    ) -> tuple[list[_Waitable], list[_Waitable], list[_Waitable]]:
        """Which of them are ready. Sockets that went away meanwhile raise what paho expects: TypeError for None, ValueError."""
        if None in readers or None in writers:
            raise TypeError("there is no socket")
        wanted: dict[int, int] = {}
        for item in readers:
            wanted[item.fileno()] = select.POLLIN
        for item in writers:
            wanted[item.fileno()] = wanted.get(item.fileno(), 0) | select.POLLOUT
        if -1 in wanted:
            raise ValueError("a socket is closed")
        poll = select.poll()
        for number, events in wanted.items():
            poll.register(number, events)
        ready = dict(poll.poll(timeout_s * 1000))
        ended = select.POLLHUP | select.POLLERR | select.POLLNVAL
        can_read = [item for item in readers if ready.get(item.fileno(), 0) & (select.POLLIN | ended)]
        can_write = [item for item in writers if ready.get(item.fileno(), 0) & (select.POLLOUT | ended)]
        return can_read, can_write, []


def wait_by_poll() -> None:
    """Have paho wait so, from now on, in this process."""
    paho.mqtt.client.select = _Poll  # type: ignore[attr-defined,assignment]  # not all of a module
