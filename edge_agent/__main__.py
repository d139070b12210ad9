"""`guardwatch-agent`: run, check and look into an edge agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_agent.app import run_agent

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

Config = Annotated[Path, typer.Argument(help="Configuration file (YAML).", show_default=False)]


@app.callback()
def _agent() -> None:
    """A monitor of equipment guards, never a safety function."""


@app.command(epilog="Example: guardwatch-agent run /etc/guardwatch/agent.yaml")
def run(config: Config) -> None:
    """Read the plant, judge it, and send what is found, until stopped."""
    raise typer.Exit(run_agent(config))


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
