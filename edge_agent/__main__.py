"""`guardwatch-agent`: run, check and look into an edge agent. It monitors guards; it is no safety function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.app import evidence, survey
from edge_agent.app.exits import Exit, complain
from edge_agent.app.running import run_agent, version
from edge_agent.domain.plan import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

Config = Annotated[Path, typer.Argument(help="Configuration file (YAML).", show_default=False)]
Url = Annotated[str, typer.Argument(help="modbus+tcp://HOST[:502]", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]

_debug = False


def _end(verb: Callable[[], Exit]) -> None:
    """Run a verb and exit with its code. What goes wrong beyond its outcomes is one line, or with --debug all."""
    try:
        code = verb()
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nobody is left to tell
        code = Exit.FAILED
    except Exception as error:
        if _debug:
            raise
        complain([f"guardwatch-agent: {type(error).__name__}: {error} (--debug tells more)"])
        code = Exit.FAILED
    raise typer.Exit(code)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(version())
        raise typer.Exit


@app.callback()
def _agent(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    is_version_wanted: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    global _debug  # noqa: PLW0603 — one flag for the whole command line
    _debug = debug
    del is_version_wanted  # its callback has answered


@app.command(epilog="Example: guardwatch-agent run /etc/guardwatch/agent.yaml")
def run(config: Config) -> None:
    """Read the plant, judge it and send what is found, until stopped (SIGTERM drains, SIGHUP reloads)."""
    _end(lambda: run_agent(config))


@app.command(epilog="Example: guardwatch-agent check agent.yaml --rules")
def check(
    config: Config,
    rules: Annotated[bool, typer.Option("--rules", help="List every rule with all its parameters.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="List the requests and detection times.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a configuration, or what it means. Opens no socket."""
    _end(lambda: evidence.check(config, rules=rules, plan=plan, as_json=as_json))


@app.command(epilog="Example: guardwatch-agent verify var/gw-01.db")
def verify(
    store: Annotated[
        Path, typer.Argument(help="A store, or a bundle: payloads as JSON Lines.", show_default=False)
    ],
    key: Annotated[
        Path | None, typer.Option(help="Public or private key; default: the one beside the store.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a chain of evidence is whole; name the first bad entry and exit 1 if not."""
    _end(lambda: evidence.verify(store, key=key, as_json=as_json))


@app.command(epilog="Example: guardwatch-agent replay shift.jsonl --config agent.yaml")
def replay(
    trace: Annotated[Path, typer.Argument(help="Recorded replies, JSON Lines.", show_default=False)],
    config: Annotated[Path, typer.Option("--config", help="Configuration file (YAML).", show_default=False)],
) -> None:
    """Print, as JSON Lines, the events that a recorded trace gives: byte-identical each time."""
    _end(lambda: evidence.replay_trace(trace, config))


@app.command(
    epilog="Example: guardwatch-agent probe modbus+tcp://192.0.2.10 --table di --count 16 --find-bit"
)
def probe(
    url: Url,
    *,
    unit: Annotated[int, typer.Option(min=0, max=255)] = 1,
    table: Annotated[Table, typer.Option(help="co, di, hr or ir.")] = Table.HOLDING_REGISTER,
    start: Annotated[int, typer.Option(min=0, max=65535, help="0-based PDU address.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=2000)] = 10,
    find_bit: Annotated[bool, typer.Option("--find-bit", help="Show each bit that changes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a device's raw registers, live."""
    look = survey.Look(unit, table, start, count)
    _end(lambda: survey.probe(url, look, find_bit=find_bit, as_json=as_json))


@app.command(epilog="Example: guardwatch-agent scan modbus+tcp://192.0.2.10 --last 32")
def scan(
    url: Url,
    first: Annotated[int, typer.Option(min=0, max=255)] = survey.UNITS[0],
    last: Annotated[int, typer.Option(min=0, max=255)] = survey.UNITS[-1],
    as_json: AsJson = False,
) -> None:
    """Print which units answer behind a gateway."""
    _end(lambda: survey.scan(url, first=first, last=last, as_json=as_json))


@app.command(epilog="Example: guardwatch-agent doctor agent.yaml")
def doctor(config: Config, as_json: AsJson = False) -> None:
    """Check configuration, store, clock, devices and broker."""
    _end(lambda: survey.doctor(config, as_json=as_json))


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
