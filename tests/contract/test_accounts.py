"""The auth module, and what a token allows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from contract.server import PASSWORD, Caller, ServerUnderTest, name, parse_envelope
from contract.spec import proves
from contract.watch import Watch

USER = {"id", "username", "email", "nickname", "avatar", "role", "status", "created_at"}


@proves("POST /api/auth/register: success")
@pytest.mark.parametrize("by", ["username", "email"])
def test_registering_logs_in(server: ServerUnderTest, nobody: Caller, by: str) -> None:
    value = name() if by == "username" else f"{name()}@example.com"
    answer = nobody.post("/api/auth/register", json={by: value, "password": PASSWORD, "nickname": "Al"})
    assert set(answer["user"]) >= USER
    assert answer["user"][by] == value
    assert (answer["user"]["nickname"], answer["user"]["role"], answer["user"]["status"]) == ("Al", "user", "active")
    assert answer["tokens"]["token_type"] == "bearer"
    me = server.with_token(answer["tokens"]["access_token"]).get("/api/auth/me")
    assert me["id"] == answer["user"]["id"]


@proves("POST /api/auth/register: 409")
def test_a_taken_name_is_a_conflict(nobody: Caller, alice: Caller) -> None:
    nobody.ask("POST", "/api/auth/register", json={"username": alice.username, "password": PASSWORD}, expect=409)


@proves("POST /api/auth/register: 409", "accounts.email-ignores-case")
def test_an_email_address_is_taken_regardless_of_case(nobody: Caller) -> None:
    email = f"{name()}@example.com"
    nobody.post("/api/auth/register", json={"email": email, "password": PASSWORD})
    for again in (email, email.upper()):
        nobody.ask("POST", "/api/auth/register", json={"email": again, "password": PASSWORD}, expect=409)


@proves("POST /api/auth/register: 422")
@pytest.mark.parametrize(
    "body",
    [
        {"password": PASSWORD},
        {"username": "al", "password": PASSWORD},
        {"username": "a" * 51, "password": PASSWORD},
        {"username": "a-fine-name", "password": "12345"},
        {"username": "a-fine-name", "password": "x" * 129},
        {"username": "a-fine-name"},
        {"email": "not an address", "password": PASSWORD},
    ],
    ids=["no name", "short name", "long name", "short password", "long password", "no password", "no address"],
)
def test_an_invalid_registration_is_refused(nobody: Caller, body: dict[str, Any]) -> None:
    nobody.ask("POST", "/api/auth/register", json=body, expect=422)


@proves("POST /api/auth/register: success")
@pytest.mark.parametrize(("username", "password"), [(3, 6), (50, 128)], ids=["shortest", "longest"])
def test_the_shortest_and_longest_values_are_accepted(server: ServerUnderTest, username: int, password: int) -> None:
    """Three characters of a random name would meet others: the admin is not asked to clean up."""
    stem = name("")[-12:]
    chosen = stem[:3] if username == 3 else stem.ljust(username, "n")
    response = server.nobody().send("POST", "/api/auth/register", json={"username": chosen, "password": "p" * password})
    assert response.status_code in ((200, 409) if username == 3 else (200,))


@proves("POST /api/auth/login: success")
@pytest.mark.parametrize("by", ["username", "email"])
def test_logging_in_by_either_name(server: ServerUnderTest, nobody: Caller, by: str) -> None:
    names = {"username": name(), "email": f"{name()}@example.com"}
    made = nobody.post("/api/auth/register", json={**names, "password": PASSWORD})
    assert server.login(**{by: names[by]}, password=PASSWORD).id == made["user"]["id"]


@proves("POST /api/auth/login: 401")
def test_a_wrong_password_and_an_unknown_name_get_the_same_response(nobody: Caller, alice: Caller) -> None:
    answers = [
        nobody.ask("POST", "/api/auth/login", json={"username": username, "password": "wrong words"}, expect=401)
        for username in (alice.username, name("nobody"))
    ]
    assert answers[0].msg == answers[1].msg


@proves("POST /api/auth/login: 422")
def test_logging_in_needs_a_name(nobody: Caller) -> None:
    nobody.ask("POST", "/api/auth/login", json={"password": PASSWORD}, expect=422)
    nobody.ask("POST", "/api/auth/login", content=b"{", headers={"Content-Type": "application/json"}, expect=422)


@proves("POST /api/auth/refresh: success", "accounts.two-tabs")
def test_two_tabs_can_refresh_with_the_same_token(server: ServerUnderTest) -> None:
    user = server.register()
    pairs = [user.post("/api/auth/refresh", json={"refresh_token": user.refresh_token}) for _ in range(2)]
    assert len({user.refresh_token, *(pair["refresh_token"] for pair in pairs)}) == 3
    for pair in pairs:
        assert pair["token_type"] == "bearer"
        assert server.with_token(pair["access_token"]).get("/api/auth/me")["id"] == user.id
        user.post("/api/auth/refresh", json={"refresh_token": pair["refresh_token"]})


@proves("POST /api/auth/refresh: 401")
def test_only_valid_refresh_tokens_are_accepted(nobody: Caller, alice: Caller) -> None:
    for token in (alice.token, "nonsense", alter_token(alice.refresh_token)):
        nobody.ask("POST", "/api/auth/refresh", json={"refresh_token": token}, expect=401)


@proves("POST /api/auth/refresh: 422")
def test_refreshing_needs_a_token(nobody: Caller) -> None:
    nobody.ask("POST", "/api/auth/refresh", json={}, expect=422)


@proves("GET /api/auth/me: success")
def test_the_profile_describes_the_user(alice: Caller) -> None:
    me = alice.get("/api/auth/me")
    assert set(me) >= USER
    assert (me["id"], me["username"]) == (alice.id, alice.username)
    assert not {"password", "password_hash"} & set(me)


@proves("PUT /api/auth/me: success")
def test_only_the_given_fields_of_a_profile_change(server: ServerUnderTest) -> None:
    user = server.register(nickname="Before")
    assert user.put("/api/auth/me", json={"avatar": "https://example.com/a.png"})["nickname"] == "Before"
    assert user.put("/api/auth/me", json={"nickname": "After"})["avatar"] == "https://example.com/a.png"
    assert user.get("/api/auth/me")["nickname"] == "After"


@proves("PUT /api/auth/me: 422")
def test_a_profile_is_checked(alice: Caller) -> None:
    alice.ask("PUT", "/api/auth/me", json={"nickname": 5}, expect=422)


@proves("accounts.no-admin-by-register")
def test_a_user_cannot_become_an_admin(server: ServerUnderTest) -> None:
    more = {"role": "super_admin", "status": "banned", "id": "00000000-0000-0000-0000-000000000000"}
    response = server.nobody().send(
        "POST", "/api/auth/register", json={"username": name(), "password": PASSWORD, **more}
    )
    if response.status_code == 200:
        assert response.json()["data"]["user"]["role"] == "user"
        assert response.json()["data"]["user"]["id"] != more["id"]
    else:
        assert response.status_code == 422
    user = server.register()
    assert user.send("PUT", "/api/auth/me", json={"nickname": "x", **more}).status_code in (200, 422)
    me = user.get("/api/auth/me")
    assert (me["role"], me["status"], me["id"]) == ("user", "active", user.id)


def encode_part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    document: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return document


def alter_token(token: str) -> str:
    """The same token with one character of its middle changed."""
    place = len(token) // 2
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


def forge_token(token: str, algorithm: str, **claims: object) -> str:
    """These claims and more, signed with a key of our own, or not at all."""
    head = encode_part(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    body = encode_part(json.dumps({**claims_of(token), **claims}).encode())
    if algorithm == "none":
        return f"{head}.{body}."
    return f"{head}.{body}.{encode_part(hmac.new(b'secret', f'{head}.{body}'.encode(), hashlib.sha256).digest())}"


@proves("accounts.forged")
def test_forged_tokens_are_refused(server: ServerUnderTest, alice: Caller, admin: Caller) -> None:
    tokens = [alice.refresh_token, alter_token(alice.token), "a.b.c", alice.token[:-4]]
    if alice.token.count(".") == 2:
        later = int(time.time()) + 3600
        tokens += [forge_token(admin.token, "none", exp=later), forge_token(admin.token, "HS256", exp=later)]
    for token in tokens:
        server.with_token(token).ask("GET", "/api/auth/me", expect=401)


@proves("accounts.banned", "PUT /api/admin/users/{user_id}/status: success")
def test_a_ban_ends_streams_and_tokens_immediately(server: ServerUnderTest, admin: Caller) -> None:
    user = server.register()
    with Watch(user) as watch:
        watch.wait_for_events(1)
        assert admin.put(f"/api/admin/users/{user.id}/status", json={"status": "banned"}) is None
        for refused in (
            user.send("GET", "/api/auth/me"),
            user.send("POST", "/api/auth/refresh", json={"refresh_token": user.refresh_token}),
        ):
            assert parse_envelope(refused).status in (401, 403)
        watch.wait_until_ended()
    body = {"username": user.username, "password": PASSWORD}
    assert parse_envelope(user.send("POST", "/api/auth/login", json=body)).status in (401, 403)
    admin.put(f"/api/admin/users/{user.id}/status", json={"status": "active"})
    assert server.login(**body).id == user.id
