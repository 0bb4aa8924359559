"""The ledger of model calls as users and admins read it, and the prices that admins set."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from moorage_api.agent.model.incoming.usage import ModelCall, Outcome, Usage
from moorage_api.database import create_database, create_engine
from moorage_api.usage.ledger import begin_call, store_calls
from moorage_api.usage.pricing import PriceList
from moorage_api.usage.schemas import ModelPrice
from support.accounts import Person, data

PRICES = PriceList(
    [
        ModelPrice(model_name="dear", input_per_million=2, cached_input_per_million=0.2, output_per_million=10),
        ModelPrice(model_name="plain", input_per_million=1, output_per_million=1),
    ]
)


def call(model: str, usage: Usage, outcome: Outcome = "answered") -> ModelCall:
    return ModelCall(model, "https://llm.example/v1", usage, outcome)


async def store(api: Any, person: Person, session_id: str, *calls: ModelCall) -> None:
    engine = create_engine(api.database_url)
    async with create_database(engine).begin() as tx:
        priced = [PRICES.apply(item) for item in calls]
        await store_calls(tx, priced, session_id=UUID(session_id), user_id=UUID(person.id))
    await engine.dispose()


async def begin(api: Any, person: Person, session_id: str, item: ModelCall) -> None:
    engine = create_engine(api.database_url)
    db = create_database(engine)
    await begin_call(db, PRICES.apply(item), session_id=UUID(session_id), user_id=UUID(person.id))
    await db.close()
    await engine.dispose()


async def read(person: Person, path: str = "/api/usage", **query: Any) -> Any:
    return data(await person.client.get(path, params=query))


@pytest.mark.parametrize(
    ("model", "usage", "cost"),
    [
        pytest.param("dear", Usage(1_000_000, 0), "2", id="input"),
        pytest.param("dear", Usage(1_000_000, 0, 500_000), "1.1", id="half of the input is cached"),
        pytest.param("dear", Usage(0, 100_000, 0, 90_000), "1", id="reasoning costs as output"),
        pytest.param("plain", Usage(10, 5, 10), "0.000015", id="no price for cached input"),
        pytest.param("unknown", Usage(10, 5), None, id="no price"),
    ],
)
def test_a_call_costs_what_the_prices_say(model: str, usage: Usage, cost: str | None) -> None:
    found = PRICES.apply(call(model, usage)).cost
    assert (found if found is None else float(found)) == (cost if cost is None else float(cost))


async def test_a_user_reads_the_sums_of_their_own_calls(api: Any, alice: Person, bob: Person) -> None:
    first, second = await alice.create_session(), await alice.create_session()
    await store(api, alice, first, call("dear", Usage(1_000_000, 100_000, 500_000, 40_000)))
    await store(api, alice, second, call("dear", Usage(10, 5, is_estimated=True), "failed"), call("odd", Usage(7, 3)))
    await store(api, bob, await bob.create_session(), call("dear", Usage(1, 1)))

    found = await read(alice)
    assert found["total"] == {
        "calls": 3,
        "estimated_calls": 1,
        "unpriced_calls": 1,
        "input_tokens": 1_000_017,
        "cached_tokens": 500_000,
        "output_tokens": 100_008,
        "reasoning_tokens": 40_000,
        "cost": pytest.approx(2.10007),
    }
    assert [(row["model"], row["calls"], row["session_id"]) for row in found["rows"]] == [
        ("dear", 2, None),
        ("odd", 1, None),
    ]
    by_session = await read(alice, by="session")
    assert {row["session_id"]: row["calls"] for row in by_session["rows"]} == {first: 1, second: 2}
    only = await read(alice, by=["day", "model"], session_id=second)
    today = datetime.now(UTC).date().isoformat()
    assert [(row["day"], row["model"], row["input_tokens"]) for row in only["rows"]] == [
        (today, "dear", 10),
        (today, "odd", 7),
    ]


async def test_a_call_counts_from_its_beginning_and_once(api: Any, alice: Person) -> None:
    session = await alice.create_session()
    lost, whole, refused = (call("dear", Usage(1_000_000, 0, is_estimated=True), "started") for _ in range(3))
    for item in (lost, whole, refused):
        await begin(api, alice, session, item)
    assert [(await read(alice))["total"][name] for name in ("calls", "estimated_calls", "cost")] == [3, 3, 6]
    ended = replace(whole, outcome="answered", usage=Usage(500_000, 100_000))
    await store(api, alice, session, ended, replace(refused, outcome="refused"))
    total = (await read(alice))["total"]
    assert [total[name] for name in ("calls", "estimated_calls", "cost")] == [2, 1, pytest.approx(2 + 2)]


async def test_a_user_gets_nothing_of_the_sessions_of_others(api: Any, alice: Person, bob: Person) -> None:
    session = await bob.create_session()
    await store(api, bob, session, call("dear", Usage(1, 1)))
    found = await read(alice, session_id=session)
    assert (found["rows"], found["total"]["calls"]) == ([], 0)
    refused = await alice.client.get("/api/admin/usage", params={"user_id": bob.id})
    assert refused.status_code == 403


async def test_an_admin_reads_the_calls_of_all_users_page_by_page(
    api: Any, alice: Person, bob: Person, root: Person
) -> None:
    for person in (alice, bob):
        await store(api, person, await person.create_session(), call("dear", Usage(5, 5)))
    path = "/api/admin/usage"
    assert {alice.id, bob.id} <= {row["user_id"] for row in (await read(root, path, limit=1000))["rows"]}
    first = await read(root, path, limit=1)
    assert len(first["rows"]) == 1
    assert first["row_count"] >= 2
    assert (await read(root, path, limit=1, skip=1))["rows"] != first["rows"]
    only = await read(root, path, by=["user", "session"], user_id=bob.id)
    assert [(row["user_id"], row["calls"]) for row in only["rows"]] == [(bob.id, 1)]


async def test_a_period_counts_its_first_and_its_last_day(api: Any, alice: Person) -> None:
    session = await alice.create_session()
    await store(api, alice, session, call("dear", Usage(1, 1)), call("dear", Usage(1, 1)), call("dear", Usage(1, 1)))
    await api.sql(
        "UPDATE model_calls SET created_at = created_at - interval '40 days' WHERE id = "
        "(SELECT min(id) FROM model_calls WHERE session_id = CAST(:id AS uuid))",
        id=session,
    )
    today = datetime.now(UTC).date()
    old = today - timedelta(days=40)
    assert (await read(alice))["total"]["calls"] == 2
    assert (await read(alice, since=old.isoformat()))["total"]["calls"] == 3
    assert (await read(alice, since=old.isoformat(), until=old.isoformat()))["total"]["calls"] == 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param({"since": "2026-05-02", "until": "2026-05-01"}, 400, id="reversed"),
        pytest.param({"since": "May"}, 422, id="no date"),
        pytest.param({"by": "colour"}, 422, id="unknown group"),
        pytest.param({"session_id": "7"}, 422, id="no id"),
        pytest.param({"limit": 0}, 422, id="no rows"),
        pytest.param({"until": "9999-12-31", "since": "0001-01-01"}, 200, id="all time"),
        pytest.param({"until": "0001-01-05"}, 200, id="the first days of the calendar"),
    ],
)
async def test_odd_questions_are_refused_in_words(alice: Person, query: dict[str, Any], status: int) -> None:
    assert (await alice.client.get("/api/usage", params=query)).status_code == status


async def test_the_cost_of_deleted_sessions_stays(api: Any, alice: Person, root: Person) -> None:
    session = await alice.create_session()
    await store(api, alice, session, call("kept", Usage(5, 5)))
    data(await alice.client.post(f"/api/sessions/{session}/delete"))
    await api.sql("DELETE FROM sessions WHERE id = CAST(:id AS uuid)", id=session)
    assert [row["session_id"] for row in (await read(alice, by="session"))["rows"]] == [None]
    data(await root.client.delete(f"/api/admin/users/{alice.id}"))
    rows = (await read(root, "/api/admin/usage", by=["model", "user"], limit=1000))["rows"]
    assert [(row["user_id"], row["calls"]) for row in rows if row["model"] == "kept"] == [(None, 1)]


async def test_an_admin_replaces_the_prices(root: Person) -> None:
    path = "/api/app-config/llm/prices"
    first = {"model_name": "a", "input_per_million": 1.25, "cached_input_per_million": 0.125, "output_per_million": 10}
    second = {"model_name": "b", "input_per_million": 0, "cached_input_per_million": None, "output_per_million": 0.1}
    assert data(await root.client.post(path, json={"prices": [second, first]})) == {"prices": [first, second]}
    assert data(await root.client.post(path, json={"prices": [second]})) == {"prices": [second]}
    assert data(await root.client.get(path)) == {"prices": [second]}
    assert data(await root.client.post(path, json={"prices": []})) == {"prices": []}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"input_per_million": -1}, id="negative"),
        pytest.param({"output_per_million": None}, id="missing"),
        pytest.param({"model_name": ""}, id="no name"),
        pytest.param({"model_name": "a\x00"}, id="NUL"),
        pytest.param({"input_per_million": 1e9}, id="too large"),
    ],
)
async def test_a_price_that_cannot_be_is_refused(root: Person, change: dict[str, Any]) -> None:
    price = {"model_name": "a", "input_per_million": 1, "output_per_million": 1} | change
    answer = await root.client.post("/api/app-config/llm/prices", json={"prices": [price]})
    assert answer.status_code == 422


async def test_two_prices_for_one_model_are_refused(root: Person) -> None:
    price = {"model_name": "a", "input_per_million": 1, "output_per_million": 1}
    answer = await root.client.post("/api/app-config/llm/prices", json={"prices": [price, price]})
    assert (answer.status_code, "two prices" in answer.text) == (422, True)
