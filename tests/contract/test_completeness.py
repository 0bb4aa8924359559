"""Checks of the suite itself: it proves every line of contract.toml and imports only what it declares."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

from contract.spec import ALL_ITEMS, HERE, SPEC

ALLOWED = {"pytest", "httpx", "websockets", "contract", *sys.stdlib_module_names}
COUNTS = {
    "/api/auth": 7,
    "/api/status": 3,
    "/api/app-config": 12,
    "/api/user/tools": 4,
    "/api/sessions": 12,
    "/api/admin": 4,
    "/api/files": 4,
    "/api/v2/skills": 6,
}
"""How many endpoints each module of the contract has."""


@pytest.fixture(scope="module")
def proven_lines(request: pytest.FixtureRequest) -> set[str]:
    """Every line that a check of the suite proves, including the deselected checks."""
    marks = (mark for item in request.config.stash[ALL_ITEMS] for mark in item.iter_markers("proves"))
    return {name for mark in marks for name in mark.args}


def test_there_are_fifty_two_endpoints() -> None:
    modules = Counter(
        next(prefix for prefix in COUNTS if endpoint.partition(" ")[2].startswith(prefix))
        for endpoint in SPEC.endpoints
    )
    assert dict(modules) == COUNTS
    assert sum(COUNTS.values()) == 52


def test_every_line_of_the_contract_has_a_check(proven_lines: set[str]) -> None:
    assert set(SPEC.names) - proven_lines == set()


def test_every_check_proves_existing_lines(proven_lines: set[str]) -> None:
    assert proven_lines - set(SPEC.names) == set()


def test_every_endpoint_has_a_success_and_an_authorization() -> None:
    public = {"POST /api/auth/register", "POST /api/auth/login"}
    for endpoint, checks in SPEC.endpoints.items():
        assert "success" in checks
        if endpoint not in public and not endpoint.startswith("GET /api/"):
            assert {"401", "4401"} & set(checks), endpoint


def test_the_lines_that_are_not_served_yet_exist_in_the_contract() -> None:
    assert SPEC.not_served_yet - set(SPEC.names) - set(SPEC.endpoints) == set()


def test_the_suite_imports_only_its_declared_packages() -> None:
    found = {
        (path.name, module.partition(".")[0])
        for path in Path(HERE).glob("**/*.py")
        for module in _imported_modules(ast.parse(path.read_text()))
    }
    assert {pair for pair in found if pair[1] not in ALLOWED} == set()


def _imported_modules(tree: ast.AST) -> list[str]:
    modules: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports"
            modules.append(node.module or "")
    return modules
