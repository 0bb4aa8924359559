"""Fixtures of the suite, and the table of endpoint and check at its end.

Environment: CONTRACT_URL, CONTRACT_ADMIN_USERNAME, CONTRACT_ADMIN_PASSWORD; CONTRACT_PROFILE (`safe` or `letter`);
what docs/contract-suite.md says of the rest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.bundles import SKILLS, Bundle, listed, write_bundle
from contract.peers import Peers, saying
from contract.server import Caller, Server
from contract.spec import ALL_ITEMS, SPEC
from contract.watch import Watch

OUTCOMES: dict[str, set[str]] = {}
"""What became of the checks of each name."""


def profile() -> str:
    return os.environ.get("CONTRACT_PROFILE", "safe")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not for this server; expect to fail what it is known to lack."""
    config.stash[ALL_ITEMS] = list(items)
    at_defaults = os.environ.get("CONTRACT_LIMITS") == "default"
    chosen: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        wanted = item.get_closest_marker("profile")
        fits = wanted is None or profile() in wanted.args
        (chosen if fits and (item.get_closest_marker("defaults") is not None) == at_defaults else left).append(item)
        item.user_properties += [("proves", name) for name in names_of(item)]
        lacking = [name for name in names_of(item) if not SPEC.is_served(name)]
        if lacking:
            item.add_marker(pytest.mark.xfail(strict=True, reason=f"not served yet: {', '.join(lacking)}"))
    config.hook.pytest_deselected(items=left)
    items[:] = chosen


def names_of(item: pytest.Item) -> list[str]:
    return [name for mark in item.iter_markers("proves") for name in mark.args]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The names that an item proves travel with its report as user properties."""
    if report.when == "call" or report.outcome != "passed":
        for key, name in report.user_properties:
            if key == "proves":
                OUTCOMES.setdefault(str(name), set()).add(report.outcome)


def pytest_sessionfinish() -> None:
    """With CONTRACT_REPORT, the table as a file: name and what is shown for it."""
    if report := os.environ.get("CONTRACT_REPORT"):
        Path(report).write_text(json.dumps({name: shown(name) for name in SPEC.names}))


def shown(name: str) -> str:
    """A check in the table: its name, and what is not well with it."""
    seen = OUTCOMES.get(name, set())
    if "failed" in seen:
        return "FAILED"
    if not SPEC.is_served(name):
        return "not served yet"
    return "skipped" if "skipped" in seen else "ok" if seen else "-"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each endpoint, then one for each rule. `-`: no check of this profile proves it."""
    terminalreporter.section(f"contract, profile {profile()}")
    for endpoint, checks in SPEC.endpoints.items():
        cells = "  ".join(f"{check}: {shown(f'{endpoint}: {check}')}" for check in checks)
        terminalreporter.write_line(f"{endpoint:64} {cells}")
    for rule in SPEC.rules:
        terminalreporter.write_line(f"{rule:64} {shown(rule)}")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    opened = Server(
        os.environ["CONTRACT_URL"].rstrip("/"),
        os.environ["CONTRACT_ADMIN_USERNAME"],
        os.environ["CONTRACT_ADMIN_PASSWORD"],
    )
    yield opened
    opened.delete_sessions()
    opened.close()


@pytest.fixture(autouse=True)
def few_sandboxes(server: Server) -> Iterator[None]:
    """A server need not have room for a sandbox of each check: what a check made is deleted after it."""
    before = len(server.made)
    yield
    server.delete_sessions(but=before)


@pytest.fixture(scope="session")
def admin(server: Server) -> Caller:
    return server.admin()


@pytest.fixture(scope="session")
def alice(server: Server) -> Caller:
    """A user whose sessions and files many checks share."""
    return server.register()


@pytest.fixture(scope="session")
def bob(server: Server) -> Caller:
    """Another user, who may do nothing with what is alice's."""
    return server.register()


@pytest.fixture(scope="session")
def nobody(server: Server) -> Caller:
    return server.nobody()


@pytest.fixture(scope="session")
def peers(admin: Caller) -> Iterator[Peers]:
    """The scripted model and its kin; the server is told to use the model, and told back at the end."""
    host = os.environ.get("CONTRACT_PEERS_HOST", "127.0.0.1")
    port = int(os.environ.get("CONTRACT_PEERS_PORT", "0"))
    before = admin.get("/api/app-config/llm")
    with Peers(host, port) as started:
        admin.post("/api/app-config/llm", json=started.model())
        yield started
        admin.post("/api/app-config/llm", json=before)


@pytest.fixture(scope="session", autouse=True)
def quiet_stream(server: Server) -> Iterator[Watch]:
    """A stream on which nothing happens, open from the beginning, so that its heartbeat costs no time."""
    with Watch(server.register()) as stream:
        yield stream


@pytest.fixture(scope="session", autouse=True)
def quiet_chat(server: Server, peers: Peers) -> Iterator[Watch]:
    """The same of a chat whose model says nothing."""
    user = server.register()
    session = user.new_session()
    with Watch(user, f"/api/sessions/{session}/chat", json={"message": saying("hang")}) as stream:
        yield stream


@pytest.fixture
def bundle(admin: Caller) -> Iterator[Bundle]:
    """Makes bundles in the shared directory; at the end they and what was installed from them are gone."""
    root = os.environ.get("CONTRACT_SKILLS_DIR")
    if root is None:
        pytest.skip("CONTRACT_SKILLS_DIR is not set: no directory is shared with the server")
    made: list[Path] = []

    def make(slug: str, text: str | None = None, **files: bytes) -> Path:
        made.append(write_bundle(Path(root), slug, text, files))
        return made[-1]

    yield make
    for directory in made:
        for skill in listed(admin):
            if skill["slug"] == directory.name:
                admin.ask("DELETE", f"{SKILLS}/{skill['id']}")
        shutil.rmtree(directory.parent)
