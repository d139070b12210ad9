"""What the verbs of `guardwatch-sim` take in common, and how they refuse what cannot be.

Every refusal says on stderr what is wrong and how to mend it, and ends the program with exit code 2 (bad usage).
"""

from __future__ import annotations

import contextlib
import ssl
import sys
from pathlib import Path
from typing import Annotated, Final, NoReturn, TextIO

import typer

from simulators.control import LOOPBACK
from simulators.endpoint import Transport
from simulators.scenario import Scenario, load_scenario, shipped

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
PORT_MAX: Final = 65_535
DEFAULT_LISTEN: Final = "127.0.0.1:5020"  # 502 needs root; 5020 is the customary stand-in for it
DEFAULT_BAUD: Final = 19_200  # the specification's own default (Modbus over Serial Line 1.02, 2.5.1)

TransportOption = Annotated[Transport, typer.Option(help="How Modbus is spoken; `rtu` is a pseudo-terminal.")]
BaudOption = Annotated[
    int, typer.Option(help="Speed of a serial line (rtu, rtuovertcp); 0: no slower than this machine.", min=0)
]
CertOption = Annotated[Path | None, typer.Option(help="The server's certificate, for tls (PEM).")]
KeyOption = Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")]
CaOption = Annotated[
    Path | None, typer.Option(help="Refuse clients whose certificate is not of this CA (PEM).")
]


def find_scenario(text: str) -> Scenario:
    """The scenario of that name or path; ends the program when there is none or it is wrong."""
    names = shipped()
    is_path = "/" in text or text.endswith((".yaml", ".yml"))
    if not is_path and text not in names:
        refuse(
            EXIT_USAGE,
            f"SCENARIO: there is no `{text}` — choose {', '.join(names)}, or give the path of a .yaml file",
        )
    scenario = load_scenario(Path(text) if is_path else names[text])
    if isinstance(scenario, list):
        refuse(EXIT_USAGE, "\n".join(str(problem) for problem in scenario))
    return scenario


def open_log(option: str, path: Path, files: contextlib.ExitStack) -> TextIO:
    """The file of a log, open until `files` ends; ends the program when it cannot be written."""
    try:
        return files.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        refuse(EXIT_USAGE, f"{option}: {path}: {error.strerror} — name a file that can be written")


def address(option: str, text: str) -> tuple[str, int]:
    """HOST:PORT taken apart; ends the program when it is none."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
        refuse(EXIT_USAGE, f"{option}: `{text}` is no address — write HOST:PORT, such as {DEFAULT_LISTEN}")
    return host.strip("[]"), int(port)


def tls_of(
    transport: Transport, cert_file: Path | None, key_file: Path | None, ca_file: Path | None
) -> ssl.SSLContext | None:
    """The server's side of TLS, when the transport has it; ends the program when files are missing or bad."""
    given = [file for file in (cert_file, key_file, ca_file) if file is not None]
    if transport is not Transport.TLS:
        if given:
            refuse(EXIT_USAGE, f"--cert-file: {transport} has no certificates — add --transport tls")
        return None
    if cert_file is None:
        refuse(EXIT_USAGE, "--cert-file: TLS needs a certificate — add --cert-file and --key-file")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert_file, key_file)
        if ca_file is not None:
            context.load_verify_locations(ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(file) for file in given)
        refuse(EXIT_USAGE, f"{files}: {error.strerror or error} — give PEM files that belong together")
    return context


def loopback(option: str, text: str) -> tuple[str, int]:
    """An address that nobody outside this machine can reach; ends the program when it is another."""
    host, port = address(option, text)
    if host not in LOOPBACK:
        refuse(EXIT_USAGE, f"{option}: {host} could be reached from outside — use 127.0.0.1")
    return host, port


def shown(address: tuple[str, int]) -> str:
    """HOST:PORT, as people and other options write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refuse(code: int, text: str) -> NoReturn:
    """End the program with this text on stderr."""
    sys.stderr.write(text + "\n")
    raise typer.Exit(code)
