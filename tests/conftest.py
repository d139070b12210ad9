"""What every test may ask for: real servers, and the rule that nothing is skipped.

With GUARDWATCH_NO_SKIPS=1 (set by `make test`) a skipped or expected-to-fail test is a failure: on a machine that
lacks something the run must say so instead of passing with less proven.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import Influx, InfluxBucket, Mosquitto, Postgres

settings.register_profile("fast", max_examples=20, deadline=None)
"""For `make check`: a look; `make test` searches with the default number of examples."""

settings.register_profile("whole", deadline=None)
"""No example is wrong for taking long: on a busy machine any does."""
settings.load_profile("whole")

NO_SKIPS = os.environ.get("GUARDWATCH_NO_SKIPS") == "1"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running broker of the test's own."""
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    """One InfluxDB for the whole run: it takes seconds to start."""
    with Influx(tmp_path_factory.mktemp("influx")) as server:
        yield server


@pytest.fixture
def influx(influx_server: Influx) -> InfluxBucket:
    """A fresh, empty bucket."""
    return influx_server.create_bucket()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One PostgreSQL cluster for the whole run."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """The URL of a fresh, empty database."""
    return postgres_server.create_database()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skips and expected failures into failures where none are allowed."""
    report = yield
    if NO_SKIPS and (report.skipped or hasattr(report, "wasxfail")):
        report.outcome = "failed"
        report.longrepr = f"skipped or expected to fail, which this run does not allow: {report.longrepr}"
        vars(report).pop("wasxfail", None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """As above, for a whole module that skips itself."""
    report = yield
    if NO_SKIPS and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which this run does not allow: {report.longrepr}"
    return report
