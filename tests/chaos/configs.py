"""Configurations of a plant: the demo's own, with the round's ports filled in, and a broker with the project's limits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.influx_bucket import InfluxBucket

DEMO: Final = Path(__file__).parents[2] / "config" / "demo"


def write_broker(path: Path, port: int, addresses: Sequence[str], sessions: Path | None) -> None:
    """A broker that listens on `addresses`, open to everyone; it keeps sessions in a folder, or forgets them."""
    lines = [f"listener {port} {address}" for address in addresses]
    lines += ["allow_anonymous true", "set_tcp_nodelay true"]
    lines += ["max_inflight_messages 1000", "max_queued_messages 0", "max_packet_size 65536"]
    if os.geteuid() == 0:
        lines.append("user root")  # else it drops to a user that cannot write the round's folder
    if sessions is not None:
        lines += ["persistence true", f"persistence_location {sessions}/"]
        lines += ["autosave_on_changes true", "autosave_interval 1"]
    path.write_text("\n".join([*lines, ""]))


def write_filled(path: Path, values: Mapping[str, str]) -> Path:
    """The demo's configuration of the same name, each key of `values` replaced."""
    text = (DEMO / path.name).read_text()
    for name, value in values.items():
        text = text.replace(name, value)
    path.write_text(text)
    return path


def add_influx(path: Path, bucket: InfluxBucket) -> None:
    """Let the gateway of this configuration write into `bucket`."""
    (path.parent / "influx-token").write_text(bucket.token)
    with path.open("a") as config:
        config.write(
            f"\ninfluxdb: {{url: '{bucket.url}', org: {bucket.org}, bucket: {bucket.bucket}, "
            "token_file: influx-token, timeout_ms: 2000}\n"
        )
