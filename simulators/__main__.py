"""`guardwatch-sim`: a stand-in plant over real Modbus (`run`, `list`), a fleet (`load`), a bad wire (`proxy`), a `device`.

The first line on stdout is `Modbus: HOST:PORT` (or the path of a serial port) as soon as clients may come; with
`--control` the second is `Control: HOST:PORT`. SIGTERM ends it with 0, SIGINT (Ctrl-C) with 130, both within a second.
Mistakes in files and options are told on stderr, all at once, with exit code 2; a port that cannot be had is 1.
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
from typing import Annotated, Final, TextIO

import typer
from pydantic import TypeAdapter, ValidationError

from simulators.control import Answer, ControlPort
from simulators.endpoint import Site, Transport
from simulators.fault_proxy import FaultProxy, SerialFaultProxy
from simulators.faults import Fault, FaultKind, Framing
from simulators.fleet import GUARDS_MAX, SERVERS_MAX, UNITS_MAX, Fleet, FleetPlan
from simulators.options import (
    DEFAULT_BAUD,
    DEFAULT_LISTEN,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    PORT_MAX,
    BaudOption,
    CaOption,
    CertOption,
    KeyOption,
    TransportOption,
    address,
    find_scenario,
    loopback,
    open_log,
    refuse,
    shown,
    tls_of,
)
from simulators.profile_device import ProfileDevice, find_profile
from simulators.profile_image import ProfileError, ProfileImage
from simulators.raw_fleet import RawFleet, RawPlan, fast_loop
from simulators.scenario import Refused, shipped
from simulators.serial_line import Pace
from simulators.served import json_lines_log
from simulators.stand_in import StandIn

SPEED_MAX: Final = 1_000.0
RAW_SERVERS_MAX: Final = 2_000  # a file descriptor each, and one more a client

app = typer.Typer(
    help="Stand-in plant, fleet and faulty network for Guardwatch, over real Modbus.",
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
    serial: Annotated[
        str, typer.Option(help="Serve RTU on a pseudo-terminal with this path, or `auto` for the next one.")
    ] = "",
    transport: TransportOption = Transport.TCP,
    baud: BaudOption = DEFAULT_BAUD,
    cert_file: CertOption = None,
    key_file: KeyOption = None,
    ca_file: CaOption = None,
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
    played = find_scenario(scenario)
    if serial:
        transport = Transport.RTU
    tls = tls_of(transport, cert_file, key_file, ca_file)
    path = Path(serial) if serial not in {"", "auto"} else None
    site = Site(transport, *address("--listen", listen), path, Pace(baud), tls)
    control_at = loopback("--control", control) if control else None
    with contextlib.ExitStack() as files:
        log = None
        if served_log is not None:
            log = json_lines_log(open_log("--served-log", served_log, files))

        async def serve(stop: asyncio.Event) -> None:
            plant = StandIn(
                played,
                site=site,
                control=control_at,
                seed=seed,
                speed=speed,
                served_log=log,
                on_refused=_tell_refused,
            )
            await plant.start()
            _say(f"Modbus: {plant.server.place}")
            if plant.control is not None:
                _say(f"Control: {shown(plant.control.address)}")
            await _until_stopped(plant.run(), plant.stop, stop)

        _run_until_signal(serve)


@app.command("list", epilog="Example: guardwatch-sim list --json")
def list_scenarios(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the scenarios that come with the project."""
    scenarios = [find_scenario(name) for name in shipped()]
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
    transport: TransportOption = Transport.TCP,
    baud: BaudOption = DEFAULT_BAUD,
    cert_file: CertOption = None,
    key_file: KeyOption = None,
    ca_file: CaOption = None,
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
    host, port = address("--listen", listen)
    if port and port + servers - 1 > PORT_MAX:
        refuse(EXIT_USAGE, f"--listen: {servers} ports do not fit above {port} — choose a lower first port")
    if servers > SERVERS_MAX and not raw:
        refuse(EXIT_USAGE, f"--servers: {servers} need --raw — without it write at most {SERVERS_MAX}")
    if changes_log is not None and not raw:
        refuse(EXIT_USAGE, "--changes-log: only a --raw fleet writes it — add --raw")

    if raw and transport is not Transport.TCP:
        refuse(EXIT_USAGE, f"--transport: a --raw fleet speaks tcp, not {transport} — leave one of them out")
    tls = tls_of(transport, cert_file, key_file, ca_file)
    site = Site(transport, host, port, pace=Pace(baud), tls=tls)

    def make_fleet(log: TextIO | None) -> Fleet | RawFleet:
        if raw:
            return RawFleet(RawPlan(servers, guards, changes_per_s, host, port, seed), log)
        return Fleet(FleetPlan(servers, units, guards, changes_per_s, site, seed))

    async def serve(stop: asyncio.Event) -> None:
        log = None if changes_log is None else open_log("--changes-log", changes_log, files)
        fleet = make_fleet(log)
        try:
            places = [at if isinstance(at, str) else shown(at) for at in await fleet.start()]
            _say(
                json.dumps({"modbus": places})
                if as_json
                else "\n".join(f"Modbus: {place}" for place in places)
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
    framing: Annotated[
        Framing, typer.Option(help="How replies are cut; `raw` is for anything that is not Modbus.")
    ] = Framing.MBAP,
    serial: Annotated[
        str, typer.Option(help="Clients come by a pseudo-terminal with this path (or `auto`), in RTU.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of which replies are spoilt.", min=0)] = 0,
    control: Annotated[
        str, typer.Option(help='Take {"faults": [{"kind": …}]} here, HOST:PORT on this machine.')
    ] = "",
) -> None:
    """Pass connections to a server and spoil them on purpose."""
    upstream_at, listen_at = address("UPSTREAM", upstream), address("--listen", listen)
    control_at = loopback("--control", control) if control else None
    faults = [Fault(kind, delay_ms, share=share) for kind in fault or []]

    async def serve(stop: asyncio.Event) -> None:
        spoiler = (
            SerialFaultProxy(upstream_at, faults, path=None if serial == "auto" else Path(serial), seed=seed)
            if serial
            else FaultProxy(
                upstream_at, faults, host=listen_at[0], port=listen_at[1], seed=seed, framing=framing
            )
        )
        async with spoiler:
            _say(f"Proxy: {spoiler.place}")
            if control_at is not None:
                port = ControlPort(lambda request: _set_faults(spoiler, request), control_at)
                _say(f"Control: {shown(await port.start())}")
            await stop.wait()

    _run_until_signal(serve)


@app.command(epilog="Example: guardwatch-sim device pilz-pnozmulti2 --set o0=true --set o1=true")
def device(
    profile: Annotated[str, typer.Argument(help="A name from `guardwatch-agent profiles`, or PATH.yaml.")],
    *,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="POINT=VALUE to begin with; may be given several times.")
    ] = None,
    beat: Annotated[str, typer.Option(help="A point that counts on, such as the heartbeat.")] = "",
    base: Annotated[int, typer.Option(help="The device's profile_base.", min=0, max=65_535)] = 0,
    unit: Annotated[int, typer.Option(help="Unit id.", min=0, max=255)] = 1,
    listen: Annotated[str, typer.Option(help="Where Modbus is served, HOST:PORT.")] = DEFAULT_LISTEN,
    control: Annotated[
        str, typer.Option(help='Take {"set": {"POINT": VALUE}} here, HOST:PORT on this machine.')
    ] = "",
) -> None:
    """Serve one device as its profile describes it, until stopped."""
    control_at = loopback("--control", control) if control else None
    site = Site(Transport.TCP, *address("--listen", listen))
    try:
        image = ProfileImage(find_profile(profile), unit=unit, base=base)
        made = ProfileDevice(image, site, beat=beat or None)
        made.set_all(set_ or [])
    except ProfileError as error:
        refuse(EXIT_USAGE, str(error))

    async def serve(stop: asyncio.Event) -> None:
        await made.server.start()
        _say(f"Modbus: {made.server.place}")
        if control_at is not None:
            _say(f"Control: {shown(await ControlPort(made.answer, control_at).start())}")
        await _until_stopped(made.run(), made.server.stop, stop)

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


def _say(text: str) -> None:
    """A line for whoever waits for it, even through a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


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
        refuse(EXIT_FAILED, f"{error} — choose another port, or find out who has it: ss -ltnp")
    if caught and caught[0] == signal.SIGINT:
        raise typer.Exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
