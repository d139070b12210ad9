"""Real servers for tests, benchmarks and kill scripts: mosquitto, InfluxDB 2, PostgreSQL.

Each class owns one server process with its data in a folder of its own and a port of its own on 127.0.0.1, kept over
restarts. `start` returns when the server answers (a real condition, polled until a deadline), `stop` ends it
politely, `kill` is SIGKILL to its whole process group: what a crash or a pulled plug leaves behind. All are context
managers and need no pytest. A missing binary is an error that names `make servers`, never a skip.
"""

import base64
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg

from simulators.servers import ServerBinary, find_influxd, find_mosquitto, find_postgres
from tests.influx_bucket import InfluxBucket, post, request
from tests.server_process import Server, ServerError, accepts_connections, free_port, require

__all__ = [
    "Influx",
    "InfluxBucket",
    "Mosquitto",
    "Postgres",
    "ServerError",
    "accepts_connections",
    "free_port",
]

_PASSWORD_ROUNDS = 101
"""What mosquitto_passwd 2.0 uses."""


def write_password_file(path: Path, passwords: Mapping[str, str]) -> Path:
    """Write what `mosquitto_passwd` would write (PBKDF2-SHA512), for `Mosquitto(password_file=…)`."""
    lines = []
    for user, password in passwords.items():
        salt = hashlib.sha256(user.encode()).digest()[:12]
        key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _PASSWORD_ROUNDS)
        lines.append(
            f"{user}:$7${_PASSWORD_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}\n"
        )
    path.write_text("".join(lines))
    path.chmod(0o600)
    return path


class Mosquitto(Server):
    """A mosquitto broker with the project's limits (deploy/mosquitto), open to everyone unless given a password file."""

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        persistence: bool = False,
        password_file: Path | None = None,
        extra_conf: str = "",
    ) -> None:
        super().__init__("mosquitto", folder, port)
        self._persistence = persistence
        self._password_file = password_file
        self._extra_conf = extra_conf

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:PORT`."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again on the same port; returns when it accepts connections."""
        binary = require(find_mosquitto(), "mosquitto")
        conf = self.folder / "mosquitto.conf"
        conf.write_text("\n".join([*self._settings(), self._extra_conf, ""]))
        self._process.start(
            [binary.path, "-c", conf],
            env=binary.environment(),
            is_ready=lambda: accepts_connections(self.port),
        )

    def wipe(self) -> None:
        """Delete what the stopped broker has stored: sessions, queued and retained messages."""
        (self.folder / "mosquitto.db").unlink(missing_ok=True)

    def _settings(self) -> Iterator[str]:
        yield f"listener {self.port} 127.0.0.1"
        yield f"allow_anonymous {'false' if self._password_file else 'true'}"
        if self._password_file:
            yield f"password_file {self._password_file}"
        if os.geteuid() == 0:
            yield "user root"  # else it drops to a user that cannot write the test's folder
        yield "max_inflight_messages 1000"
        yield "max_queued_messages 0"
        yield "max_packet_size 65536"
        yield "set_tcp_nodelay true"
        yield f"persistence {'true' if self._persistence else 'false'}"
        if self._persistence:
            yield f"persistence_location {self.folder}/"
            yield "autosave_on_changes true"
            yield "autosave_interval 1"


class Influx(Server):
    """An InfluxDB 2 server, set up at its first start with an organisation, a bucket and a token."""

    org = "plant"
    bucket = "guardwatch"
    token = "token-of-a-test-server"

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__("influxd", folder, port)
        self._buckets = itertools.count(1)
        self._is_set_up = False

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again on the same data; returns when it is healthy and set up."""
        binary = require(find_influxd(), "influxd 2.x")
        command: list[str | Path] = [binary.path, "run", "--reporting-disabled"]
        command += ["--http-bind-address", f"127.0.0.1:{self.port}"]
        command += ["--bolt-path", self.folder / "influxd.bolt", "--engine-path", self.folder / "engine"]
        command += ["--sqlite-path", self.folder / "influxd.sqlite", "--log-level", "warn"]
        # its home is the folder, so that no settings or credentials of the user's are read or written
        env = binary.environment() | {"HOME": str(self.folder)}
        self._process.start(command, env=env, is_ready=self._is_healthy)
        if not self._is_set_up:
            setup = {"username": "test", "password": "test-password", "org": self.org, "bucket": self.bucket}
            body = json.dumps({**setup, "token": self.token}).encode()
            post(f"{self.url}/api/v2/setup", body, "application/json", token=None)
            self._is_set_up = True

    def default_bucket(self) -> InfluxBucket:
        """The bucket made by the set-up."""
        return InfluxBucket(self.url, self.org, self.token, self.bucket)

    def create_bucket(self) -> InfluxBucket:
        """A new, empty bucket."""
        name = f"bucket-{next(self._buckets)}"
        orgs = json.loads(request(f"{self.url}/api/v2/orgs?org={self.org}", None, {}, self.token))
        body = json.dumps({"orgID": orgs["orgs"][0]["id"], "name": name, "retentionRules": []}).encode()
        post(f"{self.url}/api/v2/buckets", body, "application/json", self.token)
        return InfluxBucket(self.url, self.org, self.token, name)

    def query_lines(self, flux: str) -> list[dict[str, object]]:
        """Run a Flux query; one dict for each record of the answer."""
        return self.default_bucket().query_lines(flux)

    def _is_healthy(self) -> bool:
        try:
            return b'"pass"' in request(f"{self.url}/health", None, {}, token=None)
        except (ServerError, OSError):
            return False


class Postgres(Server):
    """A PostgreSQL cluster made by initdb at its first start; everyone on 127.0.0.1 is trusted.

    PostgreSQL refuses to run as root, so root runs it as `nobody`, with its data in a temporary folder that `nobody`
    can reach (`stop` keeps it for a restart, leaving the context removes it).
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__("postgres", folder, port, signal.SIGINT)  # SIGINT: end sessions, then stop
        self._user = "nobody" if os.geteuid() == 0 else None
        self._data: Path | None = None
        self._databases = itertools.count(1)

    @property
    def url(self) -> str:
        """`postgresql://postgres@127.0.0.1:PORT/postgres`."""
        return self._url_of("postgres")

    def start(self) -> None:
        """Start it, or start it again on the same data; returns when it answers a query."""
        binary = require(find_postgres(), "PostgreSQL")
        if self._data is None:
            self._data = self._initialise(binary)
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": ""}
        # a crash of the process loses nothing of the page cache, and tests crash only processes
        settings |= {"fsync": "off", "max_connections": 60, "shared_buffers": "16MB"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command: list[str | Path] = [binary.path, "-D", self._data, *options]
        self._process.start(command, env=binary.environment(), is_ready=self._answers, user=self._user)

    def create_database(self) -> str:
        """Make a new, empty database; returns its URL."""
        name = f"test_{next(self._databases)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url_of(name)

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._data is not None:
            shutil.rmtree(self._data.parent)
            self._data = None

    def _url_of(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _initialise(self, binary: ServerBinary) -> Path:
        home = Path(tempfile.mkdtemp(prefix="guardwatch-postgres-"))
        if self._user:
            shutil.chown(home, self._user)
        command: list[str | Path] = [binary.path.with_name("initdb"), "-D", home / "data", "-U", "postgres"]
        command += ["-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(
            command,
            env=binary.environment(),
            user=self._user,
            extra_groups=[] if self._user else None,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"initdb failed:\n{done.stdout}{done.stderr}")
        return home / "data"

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True
