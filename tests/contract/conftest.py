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

from contract.bundles import SKILLS, Bundle, list_skills, write_bundle
from contract.peers import Peers, saying
from contract.server import Caller, ServerUnderTest
from contract.spec import ALL_ITEMS, SPEC
from contract.watch import Watch

OUTCOMES: dict[str, set[str]] = {}
"""The outcomes of the checks of each line of the contract."""


def profile() -> str:
    return os.environ.get("CONTRACT_PROFILE", "safe")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the checks that do not fit this server; expect a failure of those for features that it lacks."""
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
    """Record the outcome. The lines that a check proves are in the user properties of its report."""
    if report.when == "call" or report.outcome != "passed":
        for key, name in report.user_properties:
            if key == "proves":
                OUTCOMES.setdefault(str(name), set()).add(report.outcome)


def pytest_sessionfinish() -> None:
    """Write the outcome of each line to the file CONTRACT_REPORT, if it is set."""
    if report := os.environ.get("CONTRACT_REPORT"):
        Path(report).write_text(json.dumps({name: outcome_of(name) for name in SPEC.names}))


def outcome_of(name: str) -> str:
    """The word for the outcome of one line of the contract."""
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
        cells = "  ".join(f"{check}: {outcome_of(f'{endpoint}: {check}')}" for check in checks)
        terminalreporter.write_line(f"{endpoint:64} {cells}")
    for rule in SPEC.rules:
        terminalreporter.write_line(f"{rule:64} {outcome_of(rule)}")


@pytest.fixture(scope="session")
def server() -> Iterator[ServerUnderTest]:
    opened = ServerUnderTest(
        os.environ["CONTRACT_URL"].rstrip("/"),
        os.environ["CONTRACT_ADMIN_USERNAME"],
        os.environ["CONTRACT_ADMIN_PASSWORD"],
    )
    yield opened
    opened.delete_sessions()
    opened.close()


@pytest.fixture(autouse=True)
def few_sandboxes(server: ServerUnderTest) -> Iterator[None]:
    """Delete the sessions of each check, because a server may not have room for the sandboxes of all."""
    before = len(server.made)
    yield
    server.delete_sessions(but=before)


@pytest.fixture(scope="session")
def admin(server: ServerUnderTest) -> Caller:
    return server.admin()


@pytest.fixture(scope="session")
def alice(server: ServerUnderTest) -> Caller:
    """A user whose sessions and files are shared by many checks."""
    return server.register()


@pytest.fixture(scope="session")
def bob(server: ServerUnderTest) -> Caller:
    """Another user, who has no access to the sessions and files of alice."""
    return server.register()


@pytest.fixture(scope="session")
def nobody(server: ServerUnderTest) -> Caller:
    return server.nobody()


@pytest.fixture(scope="session")
def peers(admin: Caller) -> Iterator[Peers]:
    """The scripted peers. The server uses their model until the end of the suite."""
    host = os.environ.get("CONTRACT_PEERS_HOST", "127.0.0.1")
    port = int(os.environ.get("CONTRACT_PEERS_PORT", "0"))
    before = admin.get("/api/app-config/llm")
    with Peers(host, port) as started:
        admin.post("/api/app-config/llm", json=started.model())
        yield started
        admin.post("/api/app-config/llm", json=before)


@pytest.fixture(scope="session", autouse=True)
def quiet_stream(server: ServerUnderTest) -> Iterator[Watch]:
    """An idle stream that is open from the start, so that no check has to wait for its heartbeat."""
    with Watch(server.register()) as stream:
        yield stream


@pytest.fixture(scope="session", autouse=True)
def quiet_chat(server: ServerUnderTest, peers: Peers) -> Iterator[Watch]:
    """The stream of a chat whose model never answers, for the same purpose."""
    user = server.register()
    session = user.new_session()
    with Watch(user, f"/api/sessions/{session}/chat", json={"message": saying("hang")}) as stream:
        yield stream


@pytest.fixture
def bundle(admin: Caller) -> Iterator[Bundle]:
    """Creates bundles in the shared directory. At the end they and their installed skills are deleted."""
    root = os.environ.get("CONTRACT_SKILLS_DIR")
    if root is None:
        pytest.skip("CONTRACT_SKILLS_DIR is not set: no directory is shared with the server")
    made: list[Path] = []

    def make(slug: str, text: str | None = None, **files: bytes) -> Path:
        made.append(write_bundle(Path(root), slug, text, files))
        return made[-1]

    yield make
    for directory in made:
        for skill in list_skills(admin):
            if skill["slug"] == directory.name:
                admin.ask("DELETE", f"{SKILLS}/{skill['id']}")
        shutil.rmtree(directory.parent)
