"""`guardwatch-sim`: the stand-in plant over real Modbus/TCP (`run`), its scenarios (`list`), a fleet (`load`), a bad wire (`proxy`).

The first line on stdout is `Modbus: HOST:PORT` as soon as clients may come; with `--control` the second is `Control:
HOST:PORT`. SIGTERM ends it with 0, SIGINT (Ctrl-C) with 130, both within a second. Mistakes in files and options are
told on stderr, all at once, with exit code 2; a port that cannot be had is 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Final, NoReturn, TextIO

import typer
from pydantic import TypeAdapter, ValidationError

from simulators.control import LOOPBACK, Answer, ControlPort
from simulators.fault_proxy import Fault, FaultKind, FaultProxy
from simulators.fleet import GUARDS_MAX, SERVERS_MAX, UNITS_MAX, Fleet, FleetPlan
from simulators.modbus_server import json_lines_log
from simulators.raw_fleet import RawFleet, RawPlan, fast_loop
from simulators.scenario import Refused, Scenario, load_scenario, shipped
from simulators.stand_in import StandIn

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
PORT_MAX: Final = 65_535
DEFAULT_LISTEN: Final = "127.0.0.1:5020"  # 502 needs root; 5020 is the customary stand-in for it
SPEED_MAX: Final = 1_000.0
RAW_SERVERS_MAX: Final = 2_000  # a file descriptor each, and one more a client

app = typer.Typer(
    help="Stand-in plant, fleet and faulty network for Guardwatch, over real Modbus/TCP.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Console script."""
    app()


@app.command(epilog="Example: guardwatch-sim run demo --listen 127.0.0.1:5020")
def run(
    scenario: Annotated[
        str, typer.Argument(help="A name from `guardwatch-sim list`, or the path of a scenario file.")
    ],
    *,
    listen: Annotated[
        str, typer.Option(help="Where Modbus is served, HOST:PORT; port 0 takes a free one.")
    ] = DEFAULT_LISTEN,
    control: Annotated[
        str, typer.Option(help="Serve the control port here, HOST:PORT on this machine.")
    ] = "",
    served_log: Annotated[
        Path | None, typer.Option(help="Write every served response to this file, as JSON lines.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of bounces, skews and people, instead of the scenario's.", min=0)
    ] = None,
    speed: Annotated[float, typer.Option(help="How fast virtual time runs.", min=0.001, max=SPEED_MAX)] = 1.0,
) -> None:
    """Serve the plant of a scenario until stopped."""
    played = _find_scenario(scenario)
    listen_at = _address("--listen", listen)
    control_at = _loopback("--control", control) if control else None
    with contextlib.ExitStack() as files:
        log = None
        if served_log is not None:
            log = json_lines_log(_open_log("--served-log", served_log, files))

        async def serve(stop: asyncio.Event) -> None:
            plant = StandIn(
                played,
                listen=listen_at,
                control=control_at,
                seed=seed,
                speed=speed,
                served_log=log,
                on_refused=_tell_refused,
            )
            await plant.start()
            _say(f"Modbus: {_shown(plant.server.address)}")
            if plant.control is not None:
                _say(f"Control: {_shown(plant.control.address)}")
            await _until_stopped(plant.run(), plant.stop, stop)

        _run_until_signal(serve)


@app.command("list", epilog="Example: guardwatch-sim list --json")
def list_scenarios(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the scenarios that come with the project."""
    scenarios = [_find_scenario(name) for name in shipped()]
    if as_json:
        _say(
            json.dumps(
                [
                    {
                        "name": s.name,
                        "labels": s.labels,
                        "seed": s.seed,
                        "people": s.people,
                        "loops": s.length_ms is not None,
                    }
                    for s in scenarios
                ],
                ensure_ascii=False,
            )
        )
        return
    width = max(len(s.name) for s in scenarios)
    for s in scenarios:
        _say(f"{s.name:<{width}}  {s.labels['en']} / {s.labels['zh']}")


@app.command(epilog="Example: guardwatch-sim load --servers 10 --units 8 --guards 16 --changes-per-s 50")
def load(
    *,
    servers: Annotated[int, typer.Option(help="Modbus endpoints.", min=1, max=RAW_SERVERS_MAX)] = 4,
    units: Annotated[int, typer.Option(help="Units behind each.", min=1, max=UNITS_MAX)] = 8,
    guards: Annotated[int, typer.Option(help="Doors of each unit.", min=1, max=GUARDS_MAX)] = 16,
    changes_per_s: Annotated[
        float, typer.Option(help="Doors that change each second, in all.", min=0, max=100_000)
    ] = 10,
    listen: Annotated[
        str, typer.Option(help="First endpoint, the others on the ports after it; port 0: free ones.")
    ] = "127.0.0.1:0",
    seed: Annotated[int, typer.Option(help="Seed of which door changes.", min=0)] = 0,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Answer from ready-made bytes: one unit, one channel a door; for benchmarks."
        ),
    ] = False,
    changes_log: Annotated[
        Path | None, typer.Option(help="With --raw: write every change to this file, as JSON lines.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the endpoints as one line of JSON.")] = False,
) -> None:
    """Serve a fleet of endpoints whose doors open and close, for load tests."""
    host, port = _address("--listen", listen)
    if port and port + servers - 1 > PORT_MAX:
        _refuse(EXIT_USAGE, f"--listen: {servers} ports do not fit above {port} — choose a lower first port")
    if servers > SERVERS_MAX and not raw:
        _refuse(EXIT_USAGE, f"--servers: {servers} need --raw — without it write at most {SERVERS_MAX}")
    if changes_log is not None and not raw:
        _refuse(EXIT_USAGE, "--changes-log: only a --raw fleet writes it — add --raw")

    def make_fleet(log: TextIO | None) -> Fleet | RawFleet:
        if raw:
            return RawFleet(RawPlan(servers, guards, changes_per_s, host, port, seed), log)
        return Fleet(FleetPlan(servers, units, guards, changes_per_s, host, port, seed))

    async def serve(stop: asyncio.Event) -> None:
        log = None if changes_log is None else _open_log("--changes-log", changes_log, files)
        fleet = make_fleet(log)
        try:
            addresses = await fleet.start()
            shown = [_shown(address) for address in addresses]
            _say(
                json.dumps({"modbus": shown})
                if as_json
                else "\n".join(f"Modbus: {address}" for address in shown)
            )
            await _until_stopped(fleet.run(), fleet.stop, stop)
        finally:
            await fleet.stop()

    with contextlib.ExitStack() as files:
        _run_until_signal(serve, fast_loop if raw else None)


@app.command(epilog="Example: guardwatch-sim proxy 127.0.0.1:5020 --fault late --delay-ms 800 --share 0.1")
def proxy(
    upstream: Annotated[str, typer.Argument(help="HOST:PORT of the real server.")],
    *,
    listen: Annotated[str, typer.Option(help="Where clients connect, HOST:PORT.")] = "127.0.0.1:0",
    fault: Annotated[
        list[FaultKind] | None, typer.Option(help="What goes wrong; may be given several times.")
    ] = None,
    delay_ms: Annotated[int, typer.Option(help="Delay of `latency`, `late` and `dribble`.", min=0)] = 100,
    share: Annotated[float, typer.Option(help="Share of the replies that are spoilt.", min=0, max=1)] = 1.0,
    raw: Annotated[bool, typer.Option("--raw", help="Not Modbus: spoil chunks instead of frames.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of which replies are spoilt.", min=0)] = 0,
    control: Annotated[
        str, typer.Option(help='Take {"faults": [{"kind": …}]} here, HOST:PORT on this machine.')
    ] = "",
) -> None:
    """Pass connections to a server and spoil them on purpose."""
    upstream_at, listen_at = _address("UPSTREAM", upstream), _address("--listen", listen)
    control_at = _loopback("--control", control) if control else None
    faults = [Fault(kind, delay_ms, share=share) for kind in fault or []]

    async def serve(stop: asyncio.Event) -> None:
        spoiler = FaultProxy(
            upstream_at, faults, host=listen_at[0], port=listen_at[1], seed=seed, framed=not raw
        )
        async with spoiler:
            _say(f"Proxy: {_shown(spoiler.address)}")
            if control_at is not None:
                port = ControlPort(lambda request: _set_faults(spoiler, request), control_at)
                _say(f"Control: {_shown(await port.start())}")
            await stop.wait()

    _run_until_signal(serve)


def _set_faults(spoiler: FaultProxy, request: dict[str, object]) -> Answer:
    """{"faults": [{"kind": "late", "delay_ms": 800}]} replaces the faults; {} only asks."""
    if "faults" in request:
        try:
            spoiler.faults = TypeAdapter(list[Fault]).validate_python(request["faults"])
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"faults.{place}: {first['msg']} — kinds are {', '.join(FaultKind)}") from error
    return {
        "connections": spoiler.connections,
        "struck": {kind.value: n for kind, n in spoiler.struck.items()},
    }


def _find_scenario(text: str) -> Scenario:
    """The scenario of that name or path; ends the program when there is none or it is wrong."""
    names = shipped()
    is_path = "/" in text or text.endswith((".yaml", ".yml"))
    if not is_path and text not in names:
        _refuse(
            EXIT_USAGE,
            f"SCENARIO: there is no `{text}` — choose {', '.join(names)}, or give the path of a .yaml file",
        )
    scenario = load_scenario(Path(text) if is_path else names[text])
    if isinstance(scenario, list):
        _refuse(EXIT_USAGE, "\n".join(str(problem) for problem in scenario))
    return scenario


def _open_log(option: str, path: Path, files: contextlib.ExitStack) -> TextIO:
    try:
        return files.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        _refuse(EXIT_USAGE, f"{option}: {path}: {error.strerror} — name a file that can be written")


def _address(option: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
        _refuse(EXIT_USAGE, f"{option}: `{text}` is no address — write HOST:PORT, such as {DEFAULT_LISTEN}")
    return host.strip("[]"), int(port)


def _loopback(option: str, text: str) -> tuple[str, int]:
    host, port = _address(option, text)
    if host not in LOOPBACK:
        _refuse(EXIT_USAGE, f"{option}: {host} could be reached from outside — use 127.0.0.1")
    return host, port


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _say(text: str) -> None:
    """A line for whoever waits for it, even through a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _refuse(code: int, text: str) -> NoReturn:
    sys.stderr.write(text + "\n")
    raise typer.Exit(code)


def _tell_refused(refused: Refused) -> None:
    act = refused.act
    target = "/".join(part for part in (act.machine, act.guard, act.device) if part)
    sys.stderr.write(
        f"{refused.at_ms / 1000:.1f} s: {act.verb} {target} could not be done: {refused.reason}\n"
    )


async def _until_stopped(
    life: Coroutine[None, None, None], close: Callable[[], Awaitable[None]], stop: asyncio.Event
) -> None:
    """Live until `stop` is set or life fails, then close."""
    living = asyncio.create_task(life)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            await living  # brings its error to light
    finally:
        living.cancel()
        stopping.cancel()
        await close()


def _run_until_signal(
    serve: Callable[[asyncio.Event], Coroutine[None, None, None]],
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run `serve` until SIGTERM (exit 0) or SIGINT (exit 130); a port that cannot be had is exit 1."""
    logging.getLogger("pymodbus").setLevel(
        logging.CRITICAL
    )  # what it would say of a taken port, we say below
    caught: list[int] = []

    async def supervised() -> None:
        stop = asyncio.Event()

        def note(number: int) -> None:
            caught.append(number)
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, note, number)
        await serve(stop)

    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(supervised())
    except OSError as error:
        _refuse(EXIT_FAILED, f"{error} — choose another port, or find out who has it: ss -ltnp")
    if caught and caught[0] == signal.SIGINT:
        raise typer.Exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
