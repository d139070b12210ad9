"""The command line: `python3 -m deploy.servers [--list] [NAME …]`, without names all of them."""

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

from deploy.servers import debian, influxdb
from deploy.servers.process import ServerUnavailableError, run, say
from simulators.servers import (
    ServerBinary,
    cache_folder,
    find_chromium,
    find_mbpoll,
    find_mosquitto,
    find_nft,
    find_postgres,
    find_strace,
)

_FONT_PACKAGE = "fonts-wqy-microhei"
"""The smallest of Debian's Chinese fonts (1.6 MB; zenhei 7 MB, noto 57 MB), and outlines at every size."""

_FONTS_CONF = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>{folder}</dir>
</fontconfig>
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Get the named servers (default: all); the exit status is 1 when one of them could not be had."""
    parser = argparse.ArgumentParser(
        prog="python3 -m deploy.servers",
        description="Get the real servers that demo and tests run, once per machine.",
        epilog="example: python3 -m deploy.servers mosquitto influxdb",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_SERVERS)} (default: all)")
    names = parser.parse_args(arguments).names or list(_SERVERS)
    unknown = [name for name in names if name not in _SERVERS]
    if unknown:
        parser.error(f"no such server: {', '.join(unknown)} — choose from {', '.join(_SERVERS)}")
    failed = [name for name in names if not _get(name)]
    if failed:
        say(f"NOT available: {', '.join(failed)} (reasons above); the others are ready")
        return 1
    return 0


def _get(name: str) -> bool:
    try:
        say(f"{name}: {_SERVERS[name]()}")
    except ServerUnavailableError as problem:
        say(f"{name}: FAILED: {problem}")
        return False
    return True


def _get_package(name: str, package: str, find: Callable[[], ServerBinary | None]) -> str:
    """Find a server or provide it from its Debian package; returns its path."""
    found = find()
    if found is None:
        say(f"{name}: getting Debian's package {package}")
        debian.provide(name, [package])
        found = find()
    if found is None:
        raise ServerUnavailableError(
            f"{package} is here, but its program is not where it belongs", "reinstall it"
        )
    return str(found.path)


def _get_font() -> str:
    """Make sure that a browser can show Chinese."""
    if shutil.which("fc-list"):
        families = run(["fc-list", ":lang=zh-cn", "family"], mend="reinstall fontconfig").splitlines()
        if families:
            return families[0]
    unpacked = sorted(cache_folder().glob("fonts-*/fonts.conf"))
    if unpacked:
        return str(unpacked[-1])
    say(f"fonts: getting Debian's package {_FONT_PACKAGE}")
    debian.provide("fonts", [_FONT_PACKAGE, "fontconfig"])
    for folder in cache_folder().glob("fonts-*"):
        (folder / "fonts.conf").write_text(_FONTS_CONF.format(folder=folder / "usr" / "share" / "fonts"))
    return _FONT_PACKAGE


_SERVERS: Mapping[str, Callable[[], str]] = {
    "mosquitto": lambda: _get_package("mosquitto", "mosquitto", find_mosquitto),
    "postgresql": lambda: _get_package("postgresql", "postgresql", find_postgres),
    "mbpoll": lambda: _get_package("mbpoll", "mbpoll", find_mbpoll),
    "nftables": lambda: _get_package("nftables", "nftables", find_nft),
    "strace": lambda: _get_package("strace", "strace", find_strace),
    "fonts": _get_font,
    "chromium": lambda: _get_package("chromium", "chromium", find_chromium),
    "influxdb": influxdb.get,
}
"""What can be had, the quickest first."""

if __name__ == "__main__":
    sys.exit(main())
