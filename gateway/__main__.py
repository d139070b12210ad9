"""`guardwatch-gateway`: journal what agents saw, run the alarms, show the plant. It monitors; it is no safety function."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.wire.event import Priority
from gateway.app import accounts, evidence, inquiry
from gateway.app.doctor import doctor as examine
from gateway.app.exits import Exit, complain
from gateway.domain.access import Role

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
user = typer.Typer(no_args_is_help=True, help="People who sign in with a password or a one-time link.")
token = typer.Typer(no_args_is_help=True, help="Tokens of programs and wall boards.")
app.add_typer(user, name="user")
app.add_typer(token, name="token")

Config = Annotated[Path, typer.Argument(help="Configuration file (YAML).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit 1 when there is something.")]
RoleOption = Annotated[Role, typer.Option("--role", help="What it may do.", show_default=False)]
NameOption = Annotated[str, typer.Option("--name", help="A name for the record.", show_default=False)]

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
        complain([f"guardwatch-gateway: {type(error).__name__}: {error} (--debug tells more)"])
        code = Exit.FAILED
    raise typer.Exit(code)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(importlib.metadata.version("guardwatch"))
        raise typer.Exit


@app.callback()
def _gateway(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    is_version_wanted: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    global _debug  # noqa: PLW0603 - one flag for the whole command line
    _debug = debug
    del is_version_wanted  # its callback has answered


@app.command(epilog="Example: guardwatch-gateway run /etc/guardwatch/gateway.yaml")
def run(config: Config) -> None:
    """Run the gateway until stopped (SIGTERM drains, SIGHUP checks the configuration and starts anew)."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it waits until it can be answered
    from gateway.app.running import run_gateway  # noqa: PLC0415 - the other verbs need no web framework

    _end(lambda: run_gateway(config))


@app.command(epilog="Example: guardwatch-gateway check gateway.yaml")
def check(config: Config, as_json: AsJson = False) -> None:
    """Say what is wrong with a configuration, or what it means. Opens no socket."""
    _end(lambda: inquiry.check(config, as_json=as_json))


@app.command(
    epilog="Example: guardwatch-gateway route gateway.yaml --rule guard_open_motion --machine mixer-18 --at 03:00"
)
def route(  # noqa: PLR0917 - one parameter for each option
    config: Config,
    rule: Annotated[str, typer.Option(help="The rule that raised it.", show_default=False)],
    machine: Annotated[str | None, typer.Option(help="Where.")] = None,
    guard: Annotated[str | None, typer.Option(help="Which guard.")] = None,
    at: Annotated[str | None, typer.Option(help="When, plant time; default: now.")] = None,
    priority: Annotated[Priority, typer.Option(help="How urgent.")] = Priority.P1,
    as_json: AsJson = False,
) -> None:
    """Say who would be told of such an alarm."""
    _end(lambda: inquiry.route(config, rule, (machine, guard), priority=priority, at=at, as_json=as_json))


@app.command(
    "alert-test", epilog="Example: guardwatch-gateway alert-test gateway.yaml --channel mail --to li-qiang"
)
def alert_test(
    config: Config,
    channel: Annotated[str, typer.Option(help="Which channel.", show_default=False)],
    to: Annotated[str, typer.Option(help="Which person.", show_default=False)],
) -> None:
    """Send a test message to one person by one channel."""
    _end(lambda: inquiry.alert_test(config, channel, to))


@app.command(epilog="Example: guardwatch-gateway alarms gateway.yaml --json")
def alarms(config: Config, as_json: AsJson = False, exit_code: ExitCode = False) -> None:
    """List the alarms that are not history, beside a running gateway or without one."""
    _end(lambda: inquiry.alarms(config, as_json=as_json, exit_code=exit_code))


@app.command(epilog="Example: guardwatch-gateway status gateway.yaml --exit-code")
def status(config: Config, as_json: AsJson = False, exit_code: ExitCode = False) -> None:
    """Say how the plant stands by the journal."""
    _end(lambda: inquiry.status(config, as_json=as_json, exit_code=exit_code))


@app.command(epilog="Example: guardwatch-gateway verify gateway.yaml --head /mnt/heads/heads.jsonl")
def verify(
    target: Annotated[
        Path, typer.Argument(help="Configuration (its journal is checked), or a bundle.", show_default=False)
    ],
    *,
    head: Annotated[
        Path | None,
        typer.Option(help="Heads kept elsewhere: they show a cut end, a restored copy, new links."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The gateway's public key: only heads that bear its signature count.")
    ] = None,
    progress: Annotated[
        bool, typer.Option("--progress", help="Show how far it is; default: on a terminal.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether the record is whole; name the first bad entry and exit 1 if not."""
    _end(lambda: evidence.verify(target, evidence.VerifyOptions(head, key, progress, as_json)))


@app.command(epilog="Example: guardwatch-gateway heads gateway.yaml >> /mnt/heads/heads.jsonl")
def heads(config: Config) -> None:
    """Print signed heads of the journal and of every agent, JSON Lines: keep them elsewhere, for verify --head."""
    _end(lambda: evidence.print_heads(config))


@app.command(epilog="Example: guardwatch-gateway export gateway.yaml --out record.jsonl")
def export(
    config: Config,
    out: Annotated[
        Path | None, typer.Option(help="Write to this new file; default: standard output.")
    ] = None,
) -> None:
    """Write the whole journal as a bundle that `verify` checks without a gateway."""
    _end(lambda: evidence.export(config, out))


@app.command(epilog="Example: guardwatch-gateway doctor gateway.yaml")
def doctor(config: Config, as_json: AsJson = False) -> None:
    """Say what is wrong on this machine, the gravest first, each with its mend."""
    _end(lambda: examine(config, as_json=as_json))


@user.command("add", epilog="Example: guardwatch-gateway user add gateway.yaml li-qiang --role shift_manager")
def user_add(
    config: Config,
    name: Annotated[str, typer.Argument(show_default=False)],
    role: RoleOption,
    password_file: Annotated[
        Path | None, typer.Option(help="Read the password from a file, or - for stdin; default: ask.")
    ] = None,
) -> None:
    """Add a user."""
    _end(lambda: accounts.add_user(config, name, role, password_file))


@user.command("list", epilog="Example: guardwatch-gateway user list gateway.yaml")
def user_list(config: Config, as_json: AsJson = False) -> None:
    """List users."""
    _end(lambda: accounts.list_users(config, as_json=as_json))


@user.command("disable", epilog="Example: guardwatch-gateway user disable gateway.yaml li-qiang")
def user_disable(config: Config, name: Annotated[str, typer.Argument(show_default=False)]) -> None:
    """End a user and their sessions; old records keep the name."""
    _end(lambda: accounts.disable_user(config, name))


@user.command(
    "link", epilog="Example: guardwatch-gateway user link gateway.yaml --role shift_manager --name demo"
)
def user_link(
    config: Config,
    role: RoleOption,
    name: NameOption,
    base_url: Annotated[
        str | None, typer.Option(help="Address of the board; default: from the configuration.")
    ] = None,
) -> None:
    """Print a link that signs in once, within a day."""
    _end(lambda: accounts.create_link(config, name, role, base_url))


@token.command(
    "create", epilog="Example: guardwatch-gateway token create gateway.yaml --role viewer --name wall-1"
)
def token_create(config: Config, role: RoleOption, name: NameOption) -> None:
    """Print a new token and nothing else; it is not shown again."""
    _end(lambda: accounts.create_token(config, name, role))


@token.command("list", epilog="Example: guardwatch-gateway token list gateway.yaml")
def token_list(config: Config, as_json: AsJson = False) -> None:
    """List tokens, without their secrets."""
    _end(lambda: accounts.list_tokens(config, as_json=as_json))


@token.command("revoke", epilog="Example: guardwatch-gateway token revoke gateway.yaml --name wall-1")
def token_revoke(config: Config, name: NameOption) -> None:
    """End a token and the sessions that rest on it."""
    _end(lambda: accounts.revoke_token(config, name))


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
