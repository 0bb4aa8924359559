"""Fixtures: a host that many tests share, and separate hosts for tests that break theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.sandbox_host import ACCOUNTS, Inside, SandboxHost, sandbox_host


@pytest.fixture(scope="session", params=ACCOUNTS)
def shared_host(request: pytest.FixtureRequest) -> Iterator[SandboxHost]:
    """A running host, as root and as an ordinary user."""
    with sandbox_host(request.param, "--max-sandboxes=50") as host:
        host.start()
        yield host


@pytest.fixture(scope="session")
def inside(shared_host: SandboxHost) -> Inside:
    """A sandbox in which commands run and that has a network."""
    made = shared_host.put()
    assert shared_host.read_sandbox(made.session_id)["reason"] == ""
    assert "default via 10.0.2.2" in made.run("ip route")
    return made


@pytest.fixture(scope="session")
def neighbour(shared_host: SandboxHost) -> Inside:
    """Another session's sandbox on the same host."""
    return shared_host.put()


@pytest.fixture(params=ACCOUNTS)
def host(request: pytest.FixtureRequest) -> Iterator[SandboxHost]:
    """A running host for one test, as root and as an ordinary user."""
    with sandbox_host(request.param) as started:
        started.start()
        yield started


@pytest.fixture
def own_host() -> Iterator[SandboxHost]:
    """A running host for one test, as the user that runs the tests."""
    with sandbox_host(ACCOUNTS[0]) as started:
        started.start()
        yield started
