"""Hosts for these tests: one that many tests look at, and fresh ones for those that break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.sandbox_host import ACCOUNTS, Inside, SandboxHost, sandbox_host


@pytest.fixture(scope="module", params=ACCOUNTS)
def shared_host(request: pytest.FixtureRequest) -> Iterator[SandboxHost]:
    """A running host, as root and as an ordinary user."""
    with sandbox_host(request.param) as host:
        host.start()
        yield host


@pytest.fixture(scope="module")
def inside(shared_host: SandboxHost) -> Inside:
    """A sandbox in which commands run."""
    return shared_host.put()


@pytest.fixture(scope="module")
def neighbour(shared_host: SandboxHost) -> Inside:
    """Another session's sandbox on the same host."""
    return shared_host.put()


@pytest.fixture(params=ACCOUNTS)
def host(request: pytest.FixtureRequest) -> Iterator[SandboxHost]:
    """A running host of this test's own, as root and as an ordinary user."""
    with sandbox_host(request.param) as started:
        started.start()
        yield started


@pytest.fixture
def own_host() -> Iterator[SandboxHost]:
    """A running host of this test's own, as whoever runs the tests."""
    with sandbox_host(ACCOUNTS[0]) as started:
        started.start()
        yield started
