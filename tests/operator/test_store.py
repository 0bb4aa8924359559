"""What was shown last counts, in whatever order it is told."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from moorage_operator.store import Store


def pod(uid: str = "one", version: int = 1) -> dict[str, Any]:
    metadata = {"name": "p", "uid": uid, "resourceVersion": str(version), "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {}, "status": {}}


def session(version: int = 1, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "n", "name": "s", "uid": "one", "resourceVersion": str(version), "generation": 1}
    metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": {"sessionId": str(UUID(int=1)), "ownerId": "alice", **spec}}


def test_what_can_not_be_read_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.see_session(session(version=1))
    store.see_session(session(version=2, desiredState="Sleeping"))
    assert store.sessions == {}
    assert "cannot be read" in caplog.text
    store.see_session(session(version=3))
    assert list(store.sessions) == ["s"]


@pytest.mark.parametrize("is_told", [True, False], ids=["by an event", "by a list"])
def test_nothing_is_kept_of_what_could_not_be_read(is_told: bool) -> None:
    store = Store()
    unreadable = session(version=2, desiredState="Sleeping")
    store.see_session(unreadable)
    assert store.has_session(unreadable)
    if is_told:
        store.forget_session(unreadable)
    else:
        store.keep_sessions(set(), 2)
    assert not store.has_session(unreadable)


def test_an_older_state_does_not_replace_a_newer_one() -> None:
    store = Store()
    store.see_pod(pod(version=2))
    store.see_pod(pod(version=1))
    assert store.pods["p"].version == 2


def test_an_answer_that_comes_after_the_deletion_brings_nothing_back() -> None:
    store = Store()
    store.see_pod(pod(version=1))
    store.forget_pod(pod(version=3))
    store.see_pod(pod(version=2))
    assert store.pods == {}


def test_a_pod_that_only_left_our_sight_is_seen_again() -> None:
    """One that lost the label we select by: its deletion, to a watch, is the very change."""
    store = Store()
    store.see_pod(pod(version=1))
    store.forget_pod(pod(version=3))
    store.see_pod(pod(version=3))
    assert store.pods["p"].version == 3


def test_the_deletion_of_an_earlier_object_leaves_the_one_of_its_name() -> None:
    store = Store()
    store.see_pod(pod("two", version=5))
    store.forget_pod(pod("one", version=6))
    assert store.pods["p"].uid == "two"


def test_a_list_drops_what_it_lacks_but_not_what_came_after_it() -> None:
    store = Store()
    store.see_pod(pod(version=5))
    assert store.keep_pods(set(), 4) == []
    assert store.keep_pods(set(), 5) == ["p"]
    assert store.pods == {}
