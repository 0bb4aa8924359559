"""The choice of unit tests finds what a test starts through its helpers."""

from __future__ import annotations

from http.server import HTTPServer

from support.processes import shared_platform
from support.unit import DOORS, reachable_names


class ServerSubclass(HTTPServer):
    pass


def starts_through_a_helper() -> None:
    with shared_platform(None):  # type: ignore[arg-type]
        pass


def starts_a_subclass_of_a_server() -> None:
    ServerSubclass(("127.0.0.1", 0), object)  # type: ignore[arg-type]


def computes() -> int:
    return len(sorted([1]))


def test_a_test_that_starts_something_through_a_helper_is_left_out() -> None:
    assert reachable_names(starts_through_a_helper) & DOORS
    assert reachable_names(starts_a_subclass_of_a_server) & DOORS


def test_a_test_that_only_computes_is_chosen() -> None:
    assert reachable_names(computes) & DOORS == set()
