"""The store keeps the newest state, in whatever order the states arrive."""

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


def test_a_session_that_cannot_be_parsed_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.put_session(session(version=1))
    store.put_session(session(version=2, desiredState="Sleeping"))
    assert store.sessions == {}
    assert "cannot be parsed" in caplog.text
    store.put_session(session(version=3))
    assert list(store.sessions) == ["s"]


@pytest.mark.parametrize("is_event", [True, False], ids=["by an event", "by a list"])
def test_a_deleted_session_that_could_not_be_parsed_leaves_no_trace(is_event: bool) -> None:
    store = Store()
    unreadable = session(version=2, desiredState="Sleeping")
    store.put_session(unreadable)
    assert store.has_session(unreadable)
    if is_event:
        store.remove_session(unreadable)
    else:
        store.keep_sessions(set(), 2)
    assert not store.has_session(unreadable)


def test_an_older_state_does_not_replace_a_newer_one() -> None:
    store = Store()
    store.put_pod(pod(version=2))
    store.put_pod(pod(version=1))
    assert store.pods["p"].version == 2


def test_a_response_that_arrives_after_the_deletion_does_not_restore_the_pod() -> None:
    store = Store()
    store.put_pod(pod(version=1))
    store.remove_pod(pod(version=3))
    store.put_pod(pod(version=2))
    assert store.pods == {}


def test_a_pod_that_lost_the_label_of_our_selector_is_stored_again() -> None:
    """A watch reports that change as a deletion."""
    store = Store()
    store.put_pod(pod(version=1))
    store.remove_pod(pod(version=3))
    store.put_pod(pod(version=3))
    assert store.pods["p"].version == 3


def test_the_deletion_of_an_earlier_pod_keeps_the_later_pod_of_that_name() -> None:
    store = Store()
    store.put_pod(pod("two", version=5))
    store.remove_pod(pod("one", version=6))
    assert store.pods["p"].uid == "two"


def test_a_list_removes_missing_pods_but_not_those_created_after_it() -> None:
    store = Store()
    store.put_pod(pod(version=5))
    assert store.keep_pods(set(), 4) == []
    assert store.keep_pods(set(), 5) == ["p"]
    assert store.pods == {}
