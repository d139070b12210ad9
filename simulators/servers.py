"""Where this machine keeps the real servers: mosquitto, InfluxDB 2, PostgreSQL and Chromium.

The demo and the tests run real servers, never imitations. This module only looks for them; `make servers` gets
what is missing (deploy/servers). Both agree on the order, and the first hit wins:

1. an environment variable that names the binary (`INFLUXD`, for InfluxDB only);
2. PATH, and the folders where Debian puts servers but which an ordinary user's PATH lacks;
3. the cache, `${XDG_CACHE_HOME:-~/.cache}/guardwatch/NAME-VERSION/`, highest version first.

A Debian package unpacked into the cache keeps its shared libraries beside it, so a binary comes with the environment
it must be started with. `influxd` is taken only when it is version 2: Debian's own `influxd` is 1.6, which has no v2
API.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_SYSTEM_FOLDERS = (Path("/usr/sbin"), Path("/usr/local/sbin"))
"""Debian installs daemons here; an ordinary user's PATH has neither."""

_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
"""Debian keeps PostgreSQL's servers out of everyone's PATH, a folder for each major version."""

_VERSION_TIMEOUT_S = 20.0
"""A cold start of the 130 MB influxd on a busy machine takes a second or two; beyond this it is broken."""

_INFLUXD_2 = re.compile(r"InfluxDB (v?2\.|dev\b)")
"""What `influxd version` begins with; `dev` is a plain build of version 2 (one of version 1 says `vunknown`)."""


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server's executable, and what its environment needs on top of the caller's."""

    path: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The complete environment to start the server with."""
        return {**os.environ, **self.env}


def cache_folder() -> Path:
    """The folder that holds fetched servers, `NAME-VERSION` each; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "guardwatch"


def find_mosquitto() -> ServerBinary | None:
    """The mosquitto broker, or None."""
    return _on_path("mosquitto") or next(_in_cache("mosquitto", "usr/sbin/mosquitto"), None)


def find_influxd() -> ServerBinary | None:
    """InfluxDB 2's server, or None; `INFLUXD` names one to use."""
    named = os.environ.get("INFLUXD")
    if named:
        return ServerBinary(Path(named)) if is_influxd_2(Path(named)) else None
    candidates = (_on_path("influxd"), *_in_cache("influxdb", "influxd"))
    return next((found for found in candidates if found and is_influxd_2(found.path)), None)


def find_postgres() -> ServerBinary | None:
    """PostgreSQL's `postgres`, with `initdb` in the same folder, or None."""
    on_path = _on_path("postgres")
    if on_path and (on_path.path.parent / "initdb").exists():
        return on_path
    for initdb in _newest(_DEBIAN_POSTGRES.glob("*/bin/initdb")):
        return ServerBinary(initdb.with_name("postgres"))
    return next(_in_cache("postgresql", "usr/lib/postgresql/*/bin/postgres"), None)


def find_chromium() -> ServerBinary | None:
    """A Chromium that a test may drive, with the Chinese font that was unpacked for it, or None."""
    found = _on_path("chromium") or next(_in_cache("chromium", "usr/lib/chromium/chromium"), None)
    fonts = _newest(cache_folder().glob("fonts-*/fonts.conf"))
    if found and fonts:
        return ServerBinary(found.path, {**found.env, "FONTCONFIG_FILE": str(fonts[0])})
    return found


def find_mbpoll() -> ServerBinary | None:
    """The independent Modbus client mbpoll (libmodbus), or None."""
    return _on_path("mbpoll") or next(_in_cache("mbpoll", "usr/bin/mbpoll"), None)


def find_nft() -> ServerBinary | None:
    """Nftables' command, with which tests lose packets, or None."""
    return _on_path("nft") or next(_in_cache("nftables", "usr/sbin/nft"), None)


def find_strace() -> ServerBinary | None:
    """The tracer strace, with which tests let system calls fail, or None."""
    return _on_path("strace") or next(_in_cache("strace", "usr/bin/strace"), None)


def is_influxd_2(path: Path) -> bool:
    """Whether this executable says that it is InfluxDB 2."""
    try:
        done = subprocess.run(  # noqa: S603 — a fixed argument, no shell
            [str(path), "version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return _INFLUXD_2.match(done.stdout) is not None


def _on_path(name: str) -> ServerBinary | None:
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, _SYSTEM_FOLDERS)])
    found = shutil.which(name, path=folders)
    return ServerBinary(Path(found)) if found else None


def _in_cache(name: str, pattern: str) -> Iterator[ServerBinary]:
    """Every executable `NAME-VERSION/PATTERN` of the cache, highest version first."""
    for folder in _newest(cache_folder().glob(f"{name}-*")):
        for executable in _newest(folder.glob(pattern)):
            if os.access(executable, os.X_OK):
                yield ServerBinary(executable, unpacked_environment(folder))


def unpacked_environment(folder: Path) -> dict[str, str]:
    """What programs of unpacked Debian packages need to find their own libraries."""
    libraries = [
        str(found) for part in ("usr/lib", "lib") for found in sorted((folder / part).glob("*-linux-gnu*"))
    ]
    env = {}
    if libraries:
        inherited = os.environ.get("LD_LIBRARY_PATH")
        env["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, *([inherited] if inherited else [])])
    return env


def _newest(paths: Iterator[Path]) -> list[Path]:
    return sorted(paths, key=_version_key, reverse=True)


def _version_key(path: Path) -> list[tuple[int, int, str]]:
    """Order `x-2.10` after `x-2.9`: runs of digits compare as numbers."""
    parts = re.findall(r"\d+|\D", str(path))
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
