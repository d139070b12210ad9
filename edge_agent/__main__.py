"""`guardwatch-agent`: run, check and look into an edge agent. It monitors guards; it is no safety function."""
# What a verb needs is imported by the verb: a running agent keeps no file schema, and a look at a device needs no store.

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.app import probe as probing
from edge_agent.app import scan as scanning
from edge_agent.app.exits import Exit, complain, refuse
from edge_agent.app.links import Reach
from edge_agent.app.loading import Loading
from edge_agent.app.looking import Look
from edge_agent.app.release import version
from edge_agent.domain.plan import Table
from edge_agent.settings.settled import CertificateFiles

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

Config = Annotated[Path, typer.Argument(help="Configuration file (YAML).", show_default=False)]
Url = Annotated[
    str,
    typer.Argument(
        help="modbus+tcp://HOST[:502], modbus+tls://…, modbus+rtuovertcp://HOST:PORT or modbus+rtu:///dev/ttyUSB0?baud=19200",
        show_default=False,
    ),
]
CaFile = Annotated[Path | None, typer.Option(help="TLS: PEM of the authority; default: the system's.")]
CertFile = Annotated[Path | None, typer.Option(help="TLS: PEM certificate to show.")]
KeyFile = Annotated[Path | None, typer.Option(help="TLS: PEM key of that certificate.")]
Unit = Annotated[int, typer.Option(min=0, max=255, help="Unit id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]

SHOW_COUNT = 10
"""Items that `probe` shows unless told otherwise: one look."""

FIND_COUNT = 100
"""Items that `--find-bit` watches unless told otherwise."""

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
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it waits until it can be answered
    loading = Loading(config)  # works while the rest is imported
    from edge_agent.app.running import run_agent  # noqa: PLC0415 — see above

    _end(lambda: run_agent(config, loading))


@app.command(epilog="Example: guardwatch-agent check agent.yaml --rules")
def check(
    config: Config,
    rules: Annotated[bool, typer.Option("--rules", help="List every rule with all its parameters.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="List the requests and detection times.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a configuration, or what it means. Opens no socket."""
    from edge_agent.app import evidence  # noqa: PLC0415 — see above

    _end(lambda: evidence.check(config, rules=rules, plan=plan, as_json=as_json))


@app.command(epilog="Example: guardwatch-agent verify var/gw-01.db --head /mnt/heads/heads.jsonl")
def verify(
    store: Annotated[
        Path, typer.Argument(help="A store, or a bundle: payloads as JSON Lines.", show_default=False)
    ],
    *,
    key: Annotated[
        Path | None, typer.Option(help="Public or private key; default: the one beside the store.")
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(help="Heads kept elsewhere: they show a cut end, a restored copy, new seals."),
    ] = None,
    progress: Annotated[
        bool, typer.Option("--progress", help="Show how far it is; default: on a terminal.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a chain of evidence is whole; name the first bad entry and exit 1 if not."""
    from edge_agent.app import evidence  # noqa: PLC0415 — see above

    _end(lambda: evidence.verify(store, evidence.VerifyOptions(key, head, progress, as_json)))


@app.command(epilog="Example: guardwatch-agent replay shift.jsonl --config agent.yaml")
def replay(
    trace: Annotated[Path, typer.Argument(help="Recorded replies, JSON Lines.", show_default=False)],
    config: Annotated[Path, typer.Option("--config", help="Configuration file (YAML).", show_default=False)],
) -> None:
    """Print, as JSON Lines, the events that a recorded trace gives: byte-identical each time."""
    from edge_agent.app import evidence  # noqa: PLC0415 — see above

    _end(lambda: evidence.replay_trace(trace, config))


@app.command(
    epilog="Example: guardwatch-agent probe modbus+tcp://192.0.2.10 --table di --count 16 --find-bit"
)
def probe(
    url: Url,
    *,
    unit: Unit = 1,
    table: Annotated[Table, typer.Option(help="co, di, hr or ir.")] = Table.HOLDING_REGISTER,
    start: Annotated[int, typer.Option(min=0, max=65535, help="0-based PDU address.")] = 0,
    count: Annotated[
        int | None, typer.Option(min=1, max=2000, help="Default 10; with --find-bit 100.")
    ] = None,
    poll_ms: Annotated[int, typer.Option(min=50, max=60_000, help="Pause between two looks.")] = 500,
    bits: Annotated[int, typer.Option(help="Widest values shown, in all orders: 16, 32 or 64.")] = 32,
    watch: Annotated[
        bool | None, typer.Option("--watch/--once", help="Go on, or look once; default: go on on a terminal.")
    ] = None,
    find_bit: Annotated[
        bool, typer.Option("--find-bit", help="Open and close a guard three times: which bit is it?")
    ] = False,
    expect: Annotated[
        float | None, typer.Option(help="A value that is known to stand at --start: in which type and order?")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="How far --expect may be off.")] = 0.0,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Print a device's raw registers, live: bits, numbers, and pairs of registers in all orders."""
    look = Look(unit, table, start, count or (FIND_COUNT if find_bit else SHOW_COUNT))
    is_live = sys.stdout.isatty() if watch is None else watch
    manner = probing.Manner(is_live, poll_ms, bits, as_json)
    reach = Reach(url, CertificateFiles(ca_file, cert_file, key_file))
    if find_bit:
        _end(lambda: probing.find_bit(reach, look, as_json=as_json))
    elif expect is not None:
        _end(lambda: probing.expect(reach, look, expect, tolerance, as_json=as_json))
    else:
        _end(lambda: probing.probe(reach, look, manner))


@app.command(epilog="Example: guardwatch-agent scan modbus+tcp://192.0.2.10 --units 1-32")
def scan(
    url: Url,
    *,
    units: Annotated[str, typer.Option(help="Which units to ask, such as 1-32 or 1,2,17.")] = scanning.UNITS,
    timeout_ms: Annotated[
        int, typer.Option(min=20, max=60_000, help="How long a unit may take.")
    ] = scanning.SCAN_TIMEOUT_MS,
    baud: Annotated[
        str | None, typer.Option(help="auto: try every usual speed and parity of a serial line.")
    ] = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Print which units answer on a link, and which of their tables. Ctrl-C prints what was found so far."""
    if baud not in (None, "auto"):
        _end(
            lambda: refuse(f'--baud takes only auto, not "{baud}" — write the speed into the URL: ?baud=9600')
        )
    _end(
        lambda: scanning.scan(
            Reach(url, CertificateFiles(ca_file, cert_file, key_file)),
            units=units,
            timeout_ms=timeout_ms,
            baud_auto=baud == "auto",
            as_json=as_json,
        )
    )


@app.command(epilog="Example: guardwatch-agent doctor agent.yaml")
def doctor(config: Config, as_json: AsJson = False) -> None:
    """Check configuration, store, clock, devices and broker."""
    from edge_agent.app import doctor as diagnosis  # noqa: PLC0415 — see above

    _end(lambda: diagnosis.doctor(config, as_json=as_json))


@app.command(epilog="Example: guardwatch-agent profiles delta-dvp X10")
def profiles(
    name: Annotated[
        str | None, typer.Argument(help="A profile's name or file; none lists them.", show_default=False)
    ] = None,
    point: Annotated[
        str | None, typer.Argument(help="A point: where does it lie?", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the devices that are known by name, or the points of one. Opens no socket."""
    from edge_agent.app import profiles as known  # noqa: PLC0415 — see above

    if name is None:
        _end(lambda: known.list_profiles(as_json=as_json))
    else:
        _end(lambda: known.show_profile(name, point, as_json=as_json))


def main() -> None:
    """Entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # as stderr: a path or label may hold what a terminal cannot write
    app()


if __name__ == "__main__":
    main()
