"""URLs of devices and brokers, parsed and normalised so that equal links compare equal.

A device's link is `modbus+tcp://HOST[:502]`, `modbus+tls://HOST[:802]`, `modbus+rtuovertcp://HOST:PORT` or
`modbus+rtu:///dev/ttyUSB0?baud=19200&parity=E` (with `parity=N` two stop bits, unless `stopbits=1`). Passwords never stand in URLs: they would reach logs and hashes.

Source: the outside contract, section 2; Modbus Messaging on TCP/IP 1.0b (port 502); Modbus/TCP Security (port 802);
Modbus over Serial Line 1.02 (19200 baud, even parity by default; without parity a second stop bit, 2.5.1; units 1 to 247).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

TLS: Final = "modbus+tls"
RTU_OVER_TCP: Final = "modbus+rtuovertcp"
SERIAL: Final = "modbus+rtu"

PORT_DEFAULTS: Final[Mapping[str, int | None]] = {
    "modbus+tcp": 502,
    TLS: 802,
    RTU_OVER_TCP: None,
}
BAUDS: Final = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)
PARITIES: Final = ("E", "O", "N")
STOPBITS: Final = ("1", "2")
UNITS_IP: Final = range(256)
"""On TCP the unit only matters behind a gateway; 0 and 255 mean the device itself (Modbus Messaging 1.0b, 4.4.2.1)."""
UNITS_RTU: Final = range(1, 248)
"""On RTU framing 0 is broadcast and 248–255 are reserved (Modbus over Serial Line 1.02, 2.2)."""

BROKER_PORTS: Final[Mapping[str, int]] = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class SerialLine:
    """A serial device and how it is set; `parity` E, O or N."""

    path: str
    baud: int
    parity: str
    stopbits: int


@dataclass(frozen=True, slots=True)
class Link:
    """A device's link: its normalised URL, the units that its framing allows, and the endpoint: host and port, or a serial line."""

    url: str
    scheme: str
    units: range
    host: str = ""
    port: int = 0
    line: SerialLine | None = None

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == TLS

    @property
    def is_rtu(self) -> bool:
        """Whether frames are RTU's, in which nothing says which request an answer belongs to."""
        return self.scheme in (RTU_OVER_TCP, SERIAL)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker listens; `path` is for WebSockets only."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("mqtts", "wss")


class BadUrl(ValueError):  # noqa: N818  # reads as the finding that it is
    """Why a URL cannot be used: `args` are what is wrong and how to mend it."""

    @property
    def what(self) -> str:
        """What is wrong."""
        return str(self.args[0])

    @property
    def mend(self) -> str:
        """How to mend it."""
        return str(self.args[1])


def parse_link(text: str) -> Link:
    """A device's URL. Raises `BadUrl`."""
    parts, port = _split(text, "modbus+tcp://192.0.2.10:502")
    if parts.scheme == SERIAL:
        return _serial(parts)
    if parts.scheme not in PORT_DEFAULTS:
        known = ", ".join((*PORT_DEFAULTS, SERIAL))
        raise BadUrl(
            f'"{parts.scheme}" is no kind of link',
            f"write one of {known}, such as modbus+tcp://192.0.2.10:502",
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadUrl("the URL goes on after the port", "write scheme://host:port and nothing more")
    host, port = _host(parts), port or PORT_DEFAULTS[parts.scheme]
    if port is None:
        raise BadUrl("the port is missing", f"write {parts.scheme}://{host}:PORT")
    units = UNITS_RTU if parts.scheme == RTU_OVER_TCP else UNITS_IP
    return Link(f"{parts.scheme}://{host}:{port}", parts.scheme, units, host.strip("[]"), port)


def parse_broker(text: str) -> Broker:
    """A broker's URL. Raises `BadUrl`."""
    parts, port = _split(text, "mqtt://127.0.0.1:1883")
    if parts.scheme not in BROKER_PORTS:
        raise BadUrl(
            f'"{parts.scheme}" is no kind of broker',
            f"write one of {', '.join(BROKER_PORTS)}, such as mqtts://broker.example",
        )
    is_web = parts.scheme in ("ws", "wss")
    if parts.query or parts.fragment or (parts.path not in ("", "/") and not is_web):
        raise BadUrl("the URL goes on after the port", "write scheme://host:port and nothing more")
    path = (parts.path or "/mqtt") if is_web else ""
    return Broker(parts.scheme, _host(parts).strip("[]"), port or BROKER_PORTS[parts.scheme], path)


def _split(text: str, example: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadUrl("this is no URL", f"write it like {example}") from None
    if "://" not in text:
        raise BadUrl("this is no URL", f"write it like {example}")
    if port == 0:
        raise BadUrl("there is no port 0", "write a port from 1 to 65535")
    if parts.username is not None or parts.password is not None:
        raise BadUrl("a user or password stands in the URL", "use the keys username and password_file")
    return parts, port


def _host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host or any(not (letter.isalnum() or letter in "-._:%") for letter in host):
        raise BadUrl("the host is missing or no host name", f"write {parts.scheme}://HOST:PORT")
    try:
        host.encode("idna")
    except UnicodeError:
        raise BadUrl(
            "the host is no host name", "write 1 to 63 letters, digits and hyphens between its dots"
        ) from None
    return f"[{host}]" if ":" in host else host


def _serial(parts: SplitResult) -> Link:
    if parts.netloc or not parts.path.startswith("/") or len(parts.path) < 2:
        raise BadUrl(
            "the serial line's path is missing", "write modbus+rtu:///dev/ttyUSB0?baud=19200&parity=E"
        )
    options = parse_qs(parts.query, keep_blank_values=True)
    if unknown := sorted(set(options) - {"baud", "parity", "stopbits"}):
        raise BadUrl(f"unknown option {unknown[0][:20]}", "a serial line has baud, parity and stopbits")
    baud, parity = options.get("baud", ["19200"])[-1], options.get("parity", ["E"])[-1].upper()
    usual = "2" if parity == "N" else "1"
    stopbits = options.get("stopbits", [usual])[-1]
    if baud not in {str(known) for known in BAUDS}:
        raise BadUrl(f'"{baud[:20]}" is no baud rate', f"write one of {', '.join(map(str, BAUDS))}")
    if parity not in PARITIES:
        raise BadUrl(f'"{parity[:20]}" is no parity', "write E, O or N")
    if stopbits not in STOPBITS:
        raise BadUrl(f'"{stopbits[:20]}" is no number of stop bits', "write 1 or 2")
    url = f"{SERIAL}://{parts.path}?baud={baud}&parity={parity}"
    if stopbits != usual:
        url += f"&stopbits={stopbits}"
    return Link(url, SERIAL, UNITS_RTU, line=SerialLine(parts.path, int(baud), parity, int(stopbits)))
