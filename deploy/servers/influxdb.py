"""InfluxDB 2.7.12: from the official container image where an engine runs, else built from its Go module.

Debian's influxdb is 1.6, without the v2 API, and no package registry carries a newer binary, but the Go module proxy
carries the source. Three things stand between the source and a plain `go install`:

* its go.mod replaces a dependency (nats-streaming-server by InfluxData's fork), and a replace only counts in the main
  module: so a scratch module repeats it and names influxd by a blank import behind a build tag;
* libflux is Rust: a `pkg-config` of InfluxData's own, given to the Go tool as PKG_CONFIG, compiles it by cargo during
  the build;
* libflux turns lints into errors (its default feature `strict`), which newer compilers do not survive: cargo is called
  through two lines of shell that switch the default features off.

The Go caches of the build live in the scratch folder: a failed build is remembered by them, so each try starts with
an empty build cache, and nothing (some GB) stays behind after a good one, unpacked compilers included.
"""

import os
import shutil
from pathlib import Path

from deploy.servers import toolchain
from deploy.servers.process import ServerUnavailableError, run, say
from simulators.servers import cache_folder, find_influxd, is_influxd_2

VERSION = "2.7.12"
"""The last 2.7: the oldest line that InfluxData still mends, with the v2 API, Flux and plain-text tokens."""

_MODULE = "github.com/influxdata/influxdb/v2"
_IMAGE = f"influxdb:{VERSION}"
_PKG_CONFIG = "github.com/influxdata/pkg-config@v0.2.14"

_GO_MOD = f"""module scratch

go 1.23

require {_MODULE} v{VERSION}

replace github.com/nats-io/nats-streaming-server v0.11.2 => github.com/influxdata/nats-streaming-server \
v0.11.3-0.20201112040610-c277f7560803
"""
_IMPORT_GO = f"""//go:build influxd

package scratch

import _ "{_MODULE}/cmd/influxd"
"""
_LAX_CARGO = '#!/bin/sh\nexec cargo "$@" --no-default-features --features flux/cffi\n'

_MEND = "mend that and run `make servers` again, or let INFLUXD name an influxd 2.x binary"


def get() -> str:
    """Make sure that an influxd 2 is found; returns its path. Raises ServerUnavailableError."""
    named = os.environ.get("INFLUXD")
    found = find_influxd()
    if found:
        return str(found.path)
    if named:
        raise ServerUnavailableError(f"INFLUXD names {named}, which is no influxd 2.x", "unset or correct it")
    target = cache_folder() / f"influxdb-{VERSION}" / "influxd"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not _copy_from_image(target):
        _build(target)
    return str(target)


def _copy_from_image(target: Path) -> bool:
    """Copy influxd out of the container image; False when no engine runs here or its registry is out of reach."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    fresh = target.with_suffix(".image")
    container = ""
    try:
        run([docker, "info"], mend=_MEND)
        say(f"influxdb: copying influxd out of the container image {_IMAGE}")
        container = run([docker, "create", _IMAGE], mend=_MEND).split()[-1]
        run([docker, "cp", "-L", f"{container}:/usr/bin/influxd", fresh], mend=_MEND)
    except ServerUnavailableError:
        return False
    finally:
        if container:
            run([docker, "rm", container], mend=_MEND)
    if not is_influxd_2(fresh):  # the image's C library may be newer than this machine's
        fresh.unlink()
        return False
    fresh.replace(target)
    return True


def _build(target: Path) -> None:
    """Build influxd from source into `target`; four to six minutes on two cores."""
    tools = toolchain.provide()
    scratch = cache_folder() / f"build-influxdb-{VERSION}"
    shutil.rmtree(scratch / "go-build", ignore_errors=True)
    module = scratch / "module"  # apart from the caches, which `go mod tidy` would take for a part of it
    module.mkdir(parents=True, exist_ok=True)
    (module / "go.mod").write_text(_GO_MOD)
    (module / "import.go").write_text(_IMPORT_GO)
    bin_folder = scratch / "bin"
    bin_folder.mkdir(exist_ok=True)
    lax = bin_folder / "cargo-lax"
    lax.write_text(_LAX_CARGO)
    lax.chmod(0o755)
    env = {
        **tools.env,
        "GOBIN": str(bin_folder),
        "GOPATH": str(scratch / "go"),
        "GOMODCACHE": str(scratch / "go" / "mod"),
        "GOCACHE": str(scratch / "go-build"),
        "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false",
        "CGO_ENABLED": "1",
    }
    log = cache_folder() / "influxdb-build.log"
    say("influxdb: resolving its Go modules (1 of 3)")
    run([tools.go, "mod", "tidy"], mend=_MEND, folder=module, env=env, log=log)
    say("influxdb: building its pkg-config (2 of 3)")
    run([tools.go, "install", _PKG_CONFIG], mend=_MEND, folder=module, env=env, log=log)
    say(f"influxdb: building influxd {VERSION} (3 of 3); this takes four to six minutes, once per machine")
    build_env = {**env, "PKG_CONFIG": str(bin_folder / "pkg-config"), "CARGO": str(lax)}
    fresh = scratch / "influxd"
    build: list[str | Path] = [tools.go, "build", "-trimpath", "-tags", "sqlite_foreign_keys,sqlite_json"]
    build += ["-ldflags", f"-s -w -X main.version=v{VERSION}", "-o", fresh]
    run(
        [*build, f"{_MODULE}/cmd/influxd"],
        mend=f"{_MEND} (whole output: {log})",
        folder=module,
        env=build_env,
        log=log,
    )
    if not is_influxd_2(fresh):
        raise ServerUnavailableError("the influxd just built does not say that it is version 2", _MEND)
    fresh.replace(target)
    log.unlink()
    shutil.rmtree(scratch)
    toolchain.discard()
