"""Chooses the unit tests: tests whose code, fixtures and helpers start no process and no server.

The choice is made from the code at collection, so a new test needs no mark: `is_unit_test` follows every name that a
test uses, through its fixtures, its helpers and the functions of this project. `ServerGuard` proves the choice: with
`make unit`, starting a process and opening a socket to anything raise an error.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

DOORS = {
    *("subprocess", "socketserver", "pty", "multiprocessing", "uvicorn", "getfixturevalue"),
    *("create_subprocess_exec", "create_subprocess_shell", "fork", "posix_spawn", "execv", "execve"),
    *("start_server", "start_unix_server", "create_server", "create_unix_server", "listen", "bind"),
    *("HTTPServer", "ThreadingHTTPServer", "skip"),
}
"""Names that start a process or a server. `getfixturevalue` hides a fixture; `skip` says that something is needed."""

REFUSED_EVENTS = {
    *("subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system"),
    *("socket.bind", "socket.connect"),
}
"""Audit events of Python (docs.python.org, "Audit events table")."""

OURS = ("moorage_", "support.", "sandbox.", "tests.", "contract.", "api.", "operator.", "conftest")


def is_unit_test(item: pytest.Item) -> bool:
    """Whether nothing that `item` uses leads to one of DOORS."""
    if not isinstance(item, pytest.Function):
        return False
    definitions = item._fixtureinfo.name2fixturedefs.values()
    roots = [item.function, *(one.func for of_name in definitions for one in of_name if is_ours(one.func))]
    return not any(DOORS & reachable_names(root) for root in roots)


def is_ours(value: Any) -> bool:
    module = getattr(value, "__module__", None) or ""
    return module.startswith(OURS) or "/tests/" in (getattr(sys.modules.get(module), "__file__", None) or "")


@cache
def reachable_names(root: Any) -> frozenset[str]:
    """Every global and attribute that `root` uses, and what it calls of ours, and so on."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, type):
            found |= {base.__name__ for base in value.__mro__}
        for function in functions_of(value):
            names = names_of(function.__code__)
            found |= names
            waiting += used_objects(function, names)
    return frozenset(found)


def functions_of(value: Any) -> Iterator[FunctionType]:
    """The functions of a function, a decorated one, a method or a class of ours."""
    if isinstance(value, type):
        for base in value.__mro__:
            if is_ours(base):
                for member in vars(base).values():
                    yield from functions_of(getattr(member, "fget", None) or getattr(member, "__func__", member))
        return
    while hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    value = getattr(value, "__func__", value)
    if isinstance(value, FunctionType):
        yield value


def names_of(code: CodeType) -> set[str]:
    nested = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*(names_of(one) for one in nested))


def used_objects(function: FunctionType, names: set[str]) -> list[Any]:
    """Functions and classes of ours that the names stand for: globals, and attributes of modules among them."""
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    modules = [value for value in values if isinstance(value, ModuleType) and value.__name__.startswith(OURS)]
    values += [getattr(module, name) for module in modules for name in names if hasattr(module, name)]
    return [value for value in values if callable(value) and is_ours(value)]


class ServerGuard:
    """While a unit test runs, no process and no connection can be started. Python cannot remove an audit hook."""

    def __init__(self) -> None:
        self.is_active = False
        sys.addaudithook(self._refuse)

    def _refuse(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.is_active and event in REFUSED_EVENTS:
            raise AssertionError(
                f"`make unit` starts no process and opens no connection, but this test did: {event} {arguments}. "
                "Start it by a fixture or helper below tests/, then this test is left out of `make unit`."
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if is_unit_test(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        self.is_active = True
        try:
            return (yield)
        finally:
            self.is_active = False
