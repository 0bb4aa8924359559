"""Fixtures for all tests, and the rule that CI skips nothing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from moorage_api.settings import Settings
from support import seeds
from support.kube.binaries import prepared_binaries
from support.kube.errors import UnavailableError
from support.kube.progress import Stopwatch
from support.processes import Platform
from support.services import Services, run, running_services
from support.unit import ServerGuard

FAILED = pytest.StashKey[bool]()

collect_ignore = ["contract"]  # a separate project, which end_to_end/test_contract.py runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help="only tests that start no process and no server (make unit)")


def pytest_configure(config: pytest.Config) -> None:
    seeds.draw()
    if config.getoption("--unit"):
        config.pluginmanager.register(ServerGuard())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Kubernetes now where a chosen test needs it: the first build takes longer than a test may.

    `place` of tests/api/sandboxes asks for the control plane by name, so it is not among the fixtures of its tests.
    """
    needed = any({"control_plane", "place"} & set(getattr(item, "fixturenames", ())) for item in session.items)
    if needed and not session.config.option.collectonly:
        say = Stopwatch()
        try:
            prepared_binaries(say=say)
        except UnavailableError as error:
            say(f"Kubernetes is not available: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure when CI=true, because a skip there means that something is missing."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"Skipped, which CI does not allow: {call.excinfo.value if call.excinfo else ''}"
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """PostgreSQL, Valkey and S3 of this test process. The first test that needs them starts them."""
    with running_services() as started:
        yield started


@pytest.fixture(scope="session")
def _database(services: Services) -> str:
    return run(services.create_database())


@pytest.fixture
def database_url(services: Services, _database: str) -> str:
    """A database with the schema and no rows."""
    run(services.empty_database(_database))
    return _database


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A private directory for Unix sockets. The path of `tmp_path` can be too long for them."""
    path = Path(tempfile.mkdtemp(prefix="mo-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def settings(services: Services, database_url: str, short_directory: Path) -> Settings:
    """Settings of the api with an empty database and an empty Redis."""
    run(services.empty_redis())
    return services.settings(database_url=database_url, directory=short_directory)


@pytest.fixture
async def platform(
    services: Services, settings: Settings, database_url: str, short_directory: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Platform]:
    """Starts api, runner and host processes on the database of `settings`; ends what it started.

    Settings that differ: `@pytest.mark.parametrize("platform", [{"lease_seconds": 3}], indirect=True)`.
    """
    started = Platform(services, database_url, short_directory, changes=getattr(request, "param", {}))
    yield started
    await started.stop()
    if request.node.stash.get(FAILED, False):
        sys.stderr.write(started.logs())
