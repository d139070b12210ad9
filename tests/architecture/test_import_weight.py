"""What an import pulls in: the linter sees statements, only a fresh interpreter sees what is really loaded."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

LIST_THIRD_PARTY = """
import sys
before = set(sys.modules)
import {module}
site = {site!r}
loaded = (sys.modules[name] for name in sorted(set(sys.modules) - before))
for module in loaded:
    file = getattr(module, "__file__", None) or ""
    if file.startswith(site):
        print(module.__name__)
"""


def third_party(module: str) -> set[str]:
    """Top names of what `import module` loads from site-packages, in an interpreter of its own."""
    script = LIST_THIRD_PARTY.format(module=module, site=sysconfig.get_path("purelib"))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    return {line.split(".")[0] for line in done.stdout.split()}


@pytest.mark.parametrize(
    "module",
    [
        "edge_agent",
        "edge_agent.wire",
        "edge_agent.wire.codec",
        "edge_agent.wire.status",
        "edge_agent.wire.topics",
        "edge_agent.engine",
        "edge_agent.domain.delivery",
        "edge_agent.domain.verification",
        "edge_agent.ports",
        "edge_agent.runtime.agent",
    ],
)
def test_the_wire_and_the_core_need_the_standard_library_alone(module: str) -> None:
    assert third_party(module) == set()


def test_the_list_can_find_something() -> None:
    assert "paho" in third_party("edge_agent.adapters.uplink_paho")


def test_the_running_agent_keeps_neither_file_schema_nor_parser_nor_anything_of_the_gateway() -> None:
    """What runs on a small box at the machine is small: it starts again in half a second after a crash."""
    loaded = third_party("edge_agent.__main__, edge_agent.app.running")
    assert loaded >= {"typer", "paho", "pymodbus", "cryptography"}
    assert not loaded & {"pydantic", "yaml"}
    assert not loaded & {"sqlalchemy", "fastapi", "uvicorn", "httpx", "influxdb_client", "hypothesis"}


def test_loading_a_configuration_needs_schema_and_parser() -> None:
    assert third_party("edge_agent.settings.loading") >= {"pydantic", "yaml"}
