"""Registration, login, refresh, profile, and losing access at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import jwt
import pytest
from passlib.context import CryptContext

from moorage_api.database import create_database, create_engine
from moorage_api.users.admin import ensure_admin, reset_password
from support.accounts import PASSWORD, Person, client_for, data, login, register


async def test_a_new_user_is_logged_in_and_is_not_an_admin(api: Any) -> None:
    async with client_for(api.url) as client:
        body = {"username": "Grace Hopper", "email": "Grace@Navy.example", "password": PASSWORD, "nickname": "G"}
        answer = data(await client.post("/api/auth/register", json={**body, "role": "super_admin"}))
        me = data(
            await client.get("/api/auth/me", headers={"Authorization": f"Bearer {answer['tokens']['access_token']}"})
        )
    assert me == answer["user"]
    assert answer["tokens"]["token_type"] == "bearer"
    assert {key: me[key] for key in ("username", "email", "nickname", "avatar", "role", "status")} == {
        "username": "Grace Hopper",
        "email": "Grace@navy.example",
        "nickname": "G",
        "avatar": "",
        "role": "user",
        "status": "active",
    }


INVALID: dict[str, dict[str, Any]] = {
    "no name": {"password": PASSWORD},
    "empty names": {"username": "", "email": "", "password": PASSWORD},
    "short name": {"username": "ab", "password": PASSWORD},
    "long name": {"username": "a" * 51, "password": PASSWORD},
    "name of spaces": {"username": "    ", "password": PASSWORD},
    "zero-width space in the name": {"username": "ad\u200bmin", "password": PASSWORD},
    "right-to-left override in the name": {"username": "\u202enimda", "password": PASSWORD},
    "NUL in the name": {"username": "a\x00bc", "password": PASSWORD},
    "short password": {"username": "somebody", "password": "12345"},
    "long password": {"username": "somebody", "password": "1" * 129},
    "NUL in the password": {"username": "somebody", "password": "12\x003456"},
    "invalid e-mail address": {"email": "nobody", "password": PASSWORD},
    "two e-mail addresses": {"email": "a@b.example,c@d.example", "password": PASSWORD},
    "lone surrogate": {"username": "ab\ud800c", "password": PASSWORD},
}


@pytest.mark.parametrize("body", INVALID.values(), ids=INVALID.keys())
async def test_an_invalid_registration_is_refused(api: Any, body: dict[str, Any]) -> None:
    async with client_for(api.url) as client:
        response = await client.post(
            "/api/auth/register", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
    assert (response.status_code, response.json()["code"]) == (422, 422)
    assert response.json()["data"]["fields"]
    assert PASSWORD not in response.text


async def test_names_and_e_mail_addresses_are_unique_ignoring_case(api: Any) -> None:
    async with client_for(api.url) as client:
        body = {"username": "TakenName", "email": "taken@mail.example", "password": PASSWORD}
        data(await client.post("/api/auth/register", json=body))
        for taken in ({"username": "takenNAME"}, {"email": "TAKEN@mail.example"}):
            response = await client.post("/api/auth/register", json={**taken, "password": PASSWORD})
            assert (response.status_code, response.json()["data"]["error"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"email": "ada@xn--bcher-kva.example"}, {"email": "ADA@bücher.example"}),
        ({"username": "Zoe\u0308 1"}, {"username": "ZOË 1"}),
    ],
    ids=["an internationalized domain", "a decomposed accent"],
)
async def test_a_user_can_log_in_with_any_equivalent_spelling_of_the_name(
    api: Any, first: dict[str, str], again: dict[str, str]
) -> None:
    async with client_for(api.url) as client:
        user = data(await client.post("/api/auth/register", json={**first, "password": PASSWORD}))["user"]
        for spelling in (first, again):
            answer = await client.post("/api/auth/login", json={**spelling, "password": PASSWORD})
            assert data(answer)["user"] == user
            taken = await client.post("/api/auth/register", json={**spelling, "password": PASSWORD})
            assert taken.status_code == 409


async def test_null_is_the_same_as_an_omitted_optional_field(api: Any) -> None:
    async with client_for(api.url) as client:
        body = {"username": "somebody null", "email": None, "password": PASSWORD, "nickname": None}
        assert data(await client.post("/api/auth/register", json=body))["user"]["nickname"] == ""


async def test_only_one_of_many_simultaneous_registrations_gets_a_name(api: Any) -> None:
    async with client_for(api.url) as client:
        body = {"username": "wanted-by-many", "password": PASSWORD}
        answers = await asyncio.gather(*(client.post("/api/auth/register", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]


@pytest.mark.parametrize("body", [{"username": "NOBODY-here"}, {"email": "no@one.example"}, {"username": "a"}])
async def test_a_wrong_name_and_a_wrong_password_get_the_same_response(
    api: Any, alice: Person, body: dict[str, Any]
) -> None:
    async with client_for(api.url) as client:
        unknown = await client.post("/api/auth/login", json={**body, "password": PASSWORD})
        wrong = await client.post("/api/auth/login", json={"username": alice.name, "password": "wrong password"})
    assert (unknown.status_code, wrong.status_code) == (401, 401)
    assert unknown.json() == wrong.json()


async def test_an_expired_or_forged_token_gets_http_401(api: Any, alice: Person) -> None:
    claims = jwt.decode(alice.token, options={"verify_signature": False})
    secret = api.settings.jwt_secret.get_secret_value()
    tokens = {
        "expired": jwt.encode({**claims, "exp": 1}, secret, algorithm="HS256"),
        "foreign": jwt.encode(claims, "another secret of at least 32 bytes", algorithm="HS256"),
        "unsigned": jwt.encode(claims, "", algorithm="none"),
        "no end": jwt.encode({key: claims[key] for key in claims if key != "exp"}, secret, algorithm="HS256"),
        "refresh": alice.refresh_token,
        "garbage": "x.y.z",
    }
    for token in tokens.values():
        async with client_for(api.url, token) as client:
            response = await client.get("/api/auth/me")
        assert (response.status_code, response.json()["code"]) == (401, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_refreshing_in_two_tabs_keeps_both_logged_in(api: Any, alice: Person) -> None:
    async with client_for(api.url) as client:
        body = {"refresh_token": alice.refresh_token}
        first = data(await client.post("/api/auth/refresh", json=body))
        second = data(await client.post("/api/auth/refresh", json=body))
        again = data(await client.post("/api/auth/refresh", json={"refresh_token": first["refresh_token"]}))
    for pair in (first, second, again):
        async with client_for(api.url, pair["access_token"]) as client:
            assert data(await client.get("/api/auth/me"))["id"] == alice.id


async def test_an_access_token_cannot_be_used_to_refresh(api: Any, alice: Person) -> None:
    async with client_for(api.url) as client:
        response = await client.post("/api/auth/refresh", json={"refresh_token": alice.token})
    assert response.status_code == 401


@pytest.mark.parametrize("status", ["banned", "inactive"])
async def test_a_banned_user_loses_access_at_once(api: Any, alice: Person, status: str) -> None:
    await api.set_status(alice, status)
    async with client_for(api.url) as client:
        body = {"username": alice.name, "password": PASSWORD}
        answers = [
            await alice.client.get("/api/auth/me"),
            await client.post("/api/auth/login", json=body),
            await client.post("/api/auth/refresh", json={"refresh_token": alice.refresh_token}),
        ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]


async def test_a_new_password_ends_every_login(api: Any, alice: Person) -> None:
    engine = create_engine(api.database_url)
    await reset_password(create_database(engine), username=alice.name, password="another password")
    await engine.dispose()
    async with client_for(api.url) as client:
        refused = await client.post("/api/auth/refresh", json={"refresh_token": alice.refresh_token})
    assert (await alice.client.get("/api/auth/me")).status_code == 401
    assert refused.status_code == 401
    assert (await login(api.url, alice.name, "another password")).id == alice.id


async def test_omitted_profile_fields_keep_their_value(alice: Person) -> None:
    data(await alice.client.put("/api/auth/me", json={"nickname": "Al", "avatar": "https://a.example/i.png"}))
    changed = data(await alice.client.put("/api/auth/me", json={"nickname": ""}))
    assert (changed["nickname"], changed["avatar"]) == ("", "https://a.example/i.png")
    assert changed == data(await alice.client.get("/api/auth/me"))


async def test_an_old_password_hash_works_and_is_replaced_by_argon2(api: Any, alice: Person) -> None:
    bcrypt = CryptContext(schemes=["bcrypt"]).hash(PASSWORD)
    await api.sql("UPDATE users SET password_hash = :hash WHERE id = CAST(:id AS uuid)", hash=bcrypt, id=alice.id)
    await login(api.url, alice.name)
    engine = create_engine(api.database_url)
    async with engine.connect() as connection:
        row = await connection.exec_driver_sql(f"SELECT password_hash FROM users WHERE id = '{alice.id}'")
        stored = row.scalar_one()
    await engine.dispose()
    assert stored.startswith("$argon2id$")


async def test_the_first_admin_is_created_once(database_url: str) -> None:
    engine = create_engine(database_url)
    db = create_database(engine)
    made = await asyncio.gather(*(ensure_admin(db, username=f"admin{n}", password=PASSWORD) for n in range(3)))
    again = await ensure_admin(db, username="other", password=PASSWORD)
    await engine.dispose()
    assert (sorted(made), again) == ([False, False, True], False)


async def test_other_requests_do_not_wait_while_many_passwords_are_hashed(api: Any, alice: Person) -> None:
    """A hash takes 0.15 s and two run at a time. A read during this must not wait for all of them."""
    async with client_for(api.url) as client:
        logins = [
            asyncio.create_task(client.post("/api/auth/login", json={"username": alice.name, "password": PASSWORD}))
            for _ in range(12)
        ]
        await asyncio.sleep(0)
        assert (await alice.client.get("/api/auth/me")).status_code == 200
        assert not all(task.done() for task in logins)
        answers: list[httpx.Response] = await asyncio.gather(*logins)
    assert {answer.status_code for answer in answers} == {200}
    assert (await register(api.url)).id
