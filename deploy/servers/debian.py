"""Debian packages: installed when root asks, else unpacked into the cache, which needs no rights at all.

Installing never starts a service: a policy-rc.d that says no is put in place for as long as apt runs, unless the
machine has one already. Unpacking takes the packages that apt would install *on this machine*, downloads them and
extracts them into `NAME-VERSION/`; `simulators.servers` starts what is found there with LD_LIBRARY_PATH set.

apt's package lists may be missing (a fresh container) or out of date (the packages they name are gone from the
mirror). The first is seen beforehand, the second only by failing: both are mended by one `apt-get update`, for an
ordinary user into lists of his own within the cache.
"""

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.servers.process import ServerUnavailableError, run, say
from simulators.servers import cache_folder

_POLICY = Path("/usr/sbin/policy-rc.d")
_REFUSE_SERVICES = "#!/bin/sh\nexit 101\n"
"""101 = "action forbidden by policy": invoke-rc.d and deb-systemd-invoke then start nothing."""

_SYSTEM_LISTS = Path("/var/lib/apt/lists")
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
_LOCK_WAIT_S = 300
"""Another apt may be at work on a machine that has just booted."""
_PLANNED = re.compile(r"^Inst (?P<name>\S+) (?:\[\S+\] )?\((?P<version>\S+)", re.MULTILINE)
_MEND = "check apt's sources and network, or install the package by hand"


def provide(name: str, packages: Sequence[str]) -> None:
    """Install `packages` as root, or unpack them (the first gives the version) into the cache folder `NAME-VERSION`.

    Raises ServerUnavailableError when this is no Debian or the packages cannot be had.
    """
    if os.geteuid() == 0:
        install(packages)
    else:
        _unpack(name, packages)


def install(packages: Sequence[str]) -> None:
    """Install packages system-wide, starting no service. Raises ServerUnavailableError, without root at once."""
    by_hand = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0:
        raise ServerUnavailableError("this needs root", f"ask for: {by_hand}")
    _need_apt(packages)
    command = [
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
        "-o",
        f"DPkg::Lock::Timeout={_LOCK_WAIT_S}",
    ]
    if not _has_lists(_SYSTEM_LISTS):
        _update()
    with _no_service_starts():
        try:
            run([*command, *packages], mend=by_hand, env=_QUIET)
        except ServerUnavailableError:
            _update()
            run([*command, *packages], mend=f"mend apt, then: {by_hand}", env=_QUIET)


def _unpack(name: str, packages: Sequence[str]) -> None:
    _need_apt(packages)
    options = () if _has_lists(_SYSTEM_LISTS) else _own_lists()
    try:
        _download_and_extract(name, packages, options)
    except ServerUnavailableError:
        if options:
            raise
        _download_and_extract(name, packages, _own_lists())


def _own_lists() -> tuple[str, ...]:
    """Options that make apt keep its lists in the cache; the lists are fetched."""
    base = cache_folder() / "apt"
    (base / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (base / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    options = ("-o", f"Dir::State::lists={base / 'lists'}", "-o", f"Dir::Cache={base / 'cache'}")
    _update(options)
    return options


@functools.cache
def _update(options: tuple[str, ...] = ()) -> None:
    """Fetch the package lists; once in a run is enough, however many packages fail."""
    say("apt: fetching the package lists")
    run(["apt-get", *options, "update"], mend=_MEND, env=_QUIET)


def _download_and_extract(name: str, packages: Sequence[str], options: tuple[str, ...]) -> None:
    simulate = [
        "apt-get",
        *options,
        "-o",
        "Debug::NoLocking=true",
        "--simulate",
        "install",
        "--no-install-recommends",
    ]
    planned = dict(_PLANNED.findall(run([*simulate, *packages], mend=_MEND, env=_QUIET)))
    # a package that is installed already, but whose program was not found, is fetched all the same
    wanted = list(planned) + [package for package in packages if package not in planned]
    version = planned.get(packages[0], "installed")
    cache_folder().mkdir(parents=True, exist_ok=True)
    say(f"{name}: unpacking {len(wanted)} Debian packages into {cache_folder()}")
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="unpack-") as scratch:
        downloads = Path(scratch, "packages")
        tree = Path(scratch, "tree")
        downloads.mkdir()
        tree.mkdir()
        run(["apt-get", *options, "download", *wanted], mend=_MEND, env=_QUIET, folder=downloads)
        for package in sorted(downloads.glob("*.deb")):
            run(["dpkg", "-x", package, tree], mend="make room on the disk", env=_QUIET)
        target = cache_folder() / f"{name}-{version}"
        shutil.rmtree(target, ignore_errors=True)
        tree.rename(target)


def _need_apt(packages: Sequence[str]) -> None:
    if shutil.which("apt-get") is None:
        raise ServerUnavailableError(
            "this machine has no apt-get", f"install your system's equivalent of: {' '.join(packages)}"
        )


def _has_lists(folder: Path) -> bool:
    return any(folder.glob("*_Packages*"))


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Forbid packages to start services, by a policy that is removed again if it was not there."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text(_REFUSE_SERVICES)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
