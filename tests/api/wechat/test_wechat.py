"""Login with WeChat against a server that speaks its protocol: every successful way and every failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from moorage_api.wechat.login_states import LoginStates, PendingLogin
from support.accounts import Person, admin, client_for, data, register
from support.processes import Platform, Process, shared_platform
from support.services import Services, run
from support.wechat import APP_ID, SECRET, WechatStub, running_wechat

CALLBACK = "https://moorage.example/api/auth/wechat/callback"
FRONTEND = "https://app.example/login?from=wechat"


@dataclass(frozen=True)
class WechatWorld:
    process: Process
    platform: Platform
    wechat: WechatStub

    @property
    def url(self) -> str:
        return self.process.url


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[WechatWorld]:
    with running_wechat() as wechat:
        changes = {
            "wechat_app_id": APP_ID,
            "wechat_app_secret": SECRET,
            "wechat_callback_url": CALLBACK,
            "wechat_frontend_url": FRONTEND,
            "wechat_api_url": wechat.url,
        }
        with shared_platform(services, **changes) as platform:
            yield WechatWorld(run(platform.start_api()), platform, wechat)


@pytest.fixture
async def browser(world: WechatWorld) -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps cookies, as browsers do."""
    async with client_for(world.url) as client:
        yield client


@pytest.fixture
async def alice(world: WechatWorld) -> AsyncIterator[Person]:
    async with await register(world.url) as person:
        yield person


async def start_login(client: httpx.AsyncClient, **query: Any) -> str:
    url: str = data(await client.get("/api/auth/wechat/authorize", params=query))["authorize_url"]
    return dict(parse_qsl(urlsplit(url).query))["state"]


async def come_back(client: httpx.AsyncClient, **query: str) -> dict[str, str]:
    """Call the callback and return the query that its redirect gives to the front end."""
    response = await client.get("/api/auth/wechat/callback", params=query)
    assert response.status_code == 302
    assert (response.headers["cache-control"], response.headers["referrer-policy"]) == ("no-store", "no-referrer")
    url = urlsplit(response.headers["location"])
    assert (url.scheme, url.netloc, url.path) == ("https", "app.example", "/login")
    result = dict(parse_qsl(url.query))
    assert result.pop("from") == "wechat"
    return result


async def read_account(world: WechatWorld, result: dict[str, str]) -> dict[str, Any]:
    assert result["token_type"] == "bearer", result
    async with client_for(world.url, result["access_token"]) as client:
        refreshed = await client.post("/api/auth/refresh", json={"refresh_token": result["refresh_token"]})
        assert refreshed.status_code == 200
        me: dict[str, Any] = data(await client.get("/api/auth/me"))
        return me


def new_wechat_id(prefix: str = "o") -> str:
    return f"{prefix}{uuid4().hex}"


@pytest.mark.parametrize(
    ("scope", "page"),
    [
        ("snsapi_base", "/connect/oauth2/authorize"),
        ("snsapi_userinfo", "/connect/oauth2/authorize"),
        ("snsapi_login", "/connect/qrconnect"),
    ],
)
async def test_the_authorize_url_leads_to_wechat(browser: httpx.AsyncClient, scope: str, page: str) -> None:
    answer = data(await browser.get("/api/auth/wechat/authorize", params={"state": "mine", "scope": scope}))
    url = urlsplit(answer["authorize_url"])
    query = dict(parse_qsl(url.query))
    state = query.pop("state")
    assert (url.netloc, url.path, url.fragment) == ("open.weixin.qq.com", page, "wechat_redirect")
    assert query == {"appid": APP_ID, "redirect_uri": CALLBACK, "response_type": "code", "scope": scope}
    assert state.isalnum()
    assert len(state) <= 128
    assert SECRET not in answer["authorize_url"]


async def test_an_unknown_scope_is_refused(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/api/auth/wechat/authorize", params={"scope": "everything"})
    assert answer.status_code == 422


async def test_a_new_user_gets_an_account_and_the_same_one_at_the_next_login(
    world: WechatWorld, browser: httpx.AsyncClient
) -> None:
    openid = new_wechat_id()
    world.wechat.add_person("first", openid, nickname="小明 🐟", headimgurl="https://wx.example/0.png")
    result = await come_back(browser, code="first", state=await start_login(browser, state="from the front end"))
    assert result["state"] == "from the front end"
    me = await read_account(world, result)
    assert {key: me[key] for key in ("username", "email", "nickname", "avatar", "role", "status")} == {
        "username": "",
        "email": "",
        "nickname": "小明 🐟",
        "avatar": "https://wx.example/0.png",
        "role": "user",
        "status": "active",
    }
    world.wechat.add_person("second", openid, nickname="Another name")
    again = await read_account(world, await come_back(browser, code="second", state=await start_login(browser)))
    assert again == me


async def test_the_profile_is_not_requested_without_the_scope_for_it(
    world: WechatWorld, browser: httpx.AsyncClient
) -> None:
    world.wechat.add_person("base", new_wechat_id(), scope="snsapi_base", nickname="Unseen")
    asked = len(world.wechat.asked)
    me = await read_account(world, await come_back(browser, code="base", state=await start_login(browser)))
    assert me["nickname"] == ""
    assert world.wechat.asked[asked:] == ["/sns/oauth2/access_token"]


async def test_a_person_in_two_wechat_apps_has_one_account(world: WechatWorld, browser: httpx.AsyncClient) -> None:
    """The first login has an openid only. A later one adds the unionid, which finds the account from another app."""
    openid, unionid = new_wechat_id(), new_wechat_id("u")
    accounts = []
    for code, who, more in (
        ("plain", openid, {}),
        ("with union", openid, {"unionid": unionid}),
        ("other app", new_wechat_id(), {"unionid": unionid}),
    ):
        world.wechat.add_person(code, who, **more)
        accounts.append(
            await read_account(world, await come_back(browser, code=code, state=await start_login(browser)))
        )
    assert len({account["id"] for account in accounts}) == 1


async def test_two_simultaneous_first_logins_create_one_account(world: WechatWorld) -> None:
    openid = new_wechat_id()

    async def log_in(code: str) -> str:
        async with client_for(world.url) as client:
            world.wechat.add_person(code, openid)
            return str(
                (await read_account(world, await come_back(client, code=code, state=await start_login(client))))["id"]
            )

    assert len(set(await asyncio.gather(*(log_in(f"at once {number}") for number in range(4))))) == 1


async def link(alice: Person, world: WechatWorld, code: str, *, cookie: bool = True) -> dict[str, str]:
    answer = await alice.client.get("/api/auth/wechat/authorize", params={"link": "true"})
    state = dict(parse_qsl(urlsplit(data(answer)["authorize_url"]).query))["state"]
    set_cookie = answer.headers["set-cookie"]
    assert all(part in set_cookie for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/api/auth/wechat"))
    async with client_for(world.url) as client:
        if cookie:
            client.headers["Cookie"] = set_cookie.partition(";")[0]
        return await come_back(client, code=code, state=state)


async def test_a_wechat_user_can_be_linked_to_an_existing_account(
    world: WechatWorld, alice: Person, browser: httpx.AsyncClient
) -> None:
    openid = new_wechat_id()
    assert await link(alice, world, world.wechat.add_person("link", openid)) == {"linked": "true"}
    world.wechat.add_person("after", openid)
    me = await read_account(world, await come_back(browser, code="after", state=await start_login(browser)))
    assert me["id"] == alice.id


async def test_linking_needs_the_users_token_and_browser(
    world: WechatWorld, alice: Person, browser: httpx.AsyncClient
) -> None:
    """It also needs a WeChat user that has no other account."""
    assert (await browser.get("/api/auth/wechat/authorize", params={"link": "true"})).status_code == 401
    openid = new_wechat_id()
    result = await link(alice, world, world.wechat.add_person("lured", openid), cookie=False)
    assert result["error"] == "invalid_state"
    taken = await read_account(world, await come_back(browser, code="lured", state=await start_login(browser)))
    assert taken["id"] != alice.id
    assert (await link(alice, world, world.wechat.add_person("taken", openid)))["error"] == "conflict"


FAILURES: dict[str, tuple[int, bytes]] = {
    "wechat_unreachable": (0, b""),
    "wechat_unreachable by 500": (500, b"oops"),
    "wechat_unreachable by a redirect": (302, b"http://127.0.0.1:9/elsewhere"),
    "wechat_failed by HTML": (200, b"<html>"),
    "wechat_failed by a list": (200, b"[]"),
    "wechat_failed by a long body": (200, b'{"openid": "' + b"x" * 100_000 + b'"}'),
    "wechat_failed by no openid": (200, b'{"access_token": "a", "scope": "snsapi_base"}'),
    "wechat_failed by a numeric openid": (200, b'{"access_token": "a", "openid": 7, "scope": "snsapi_base"}'),
    "wechat_refused": (200, b'{"errcode": 40163, "errmsg": "code been used"}'),
}


@pytest.mark.parametrize("reason", FAILURES)
async def test_a_failure_at_wechat_is_reported_to_the_front_end(
    world: WechatWorld, browser: httpx.AsyncClient, reason: str
) -> None:
    world.wechat.misbehave[reason] = FAILURES[reason]
    result = await come_back(browser, code=reason, state=await start_login(browser, state="mine"))
    assert set(result) == {"error", "error_description", "state"}
    assert result["error"] == reason.split(" ")[0]
    assert result["error_description"]


async def test_the_profile_of_another_user_is_refused(world: WechatWorld, browser: httpx.AsyncClient) -> None:
    world.wechat.add_person("mixed", new_wechat_id(), answers_as=new_wechat_id())
    assert (await come_back(browser, code="mixed", state=await start_login(browser)))["error"] == "wechat_failed"


async def test_a_state_is_valid_once_and_a_forged_one_never(world: WechatWorld, browser: httpx.AsyncClient) -> None:
    openid = new_wechat_id()
    world.wechat.add_person("once", openid)
    state = await start_login(browser)
    assert "access_token" in await come_back(browser, code="once", state=state)
    forged = state[:-1] + ("0" if state[-1] != "0" else "1")
    for wrong in (state, forged, "", "x", "\x00", "é" * 72, state * 3, "0" * 72):
        world.wechat.add_person("stolen", openid)
        assert (await come_back(browser, code="stolen", state=wrong))["error"] == "invalid_state"
    result = await come_back(browser, code="stolen")
    assert result["error"] == "invalid_state"


async def test_an_expired_state_is_refused_even_if_redis_still_has_it(services: Services) -> None:
    redis = Redis.from_url(services.valkey.url)
    began = datetime.now(UTC)
    times = iter([began, began, began + timedelta(minutes=11)])
    states = LoginStates(redis, "a secret", lambda: next(times))
    pending = PendingLogin(client_state="mine")
    first, second = await states.begin(pending), await states.begin(pending)
    assert await states.take(first) is None
    assert await LoginStates(redis, "another secret", lambda: began).take(second) is None
    assert await LoginStates(redis, "a secret", lambda: began).take(second) == pending
    await redis.aclose()


async def test_a_declined_login_and_wrong_codes_are_reported_to_the_front_end(
    world: WechatWorld, browser: httpx.AsyncClient
) -> None:
    assert (await come_back(browser, state=await start_login(browser)))["error"] == "access_denied"
    assert (await come_back(browser, code="unknown", state=await start_login(browser)))["error"] == "wechat_refused"
    assert (await come_back(browser, code="x" * 5000, state=await start_login(browser)))["error"] == "invalid_code"


async def test_a_banned_user_cannot_log_in_with_wechat(world: WechatWorld, browser: httpx.AsyncClient) -> None:
    openid = new_wechat_id()
    world.wechat.add_person("before", openid)
    me = await read_account(world, await come_back(browser, code="before", state=await start_login(browser)))
    async with await admin(world.url, world.platform.database_url) as root:
        data(await root.client.put(f"/api/admin/users/{me['id']}/status", json={"status": "banned"}))
    world.wechat.add_person("banned", openid)
    result = await come_back(browser, code="banned", state=await start_login(browser))
    assert (result["error"], "access_token" in result) == ("forbidden", False)


async def test_the_log_contains_no_secret_and_no_code(world: WechatWorld, browser: httpx.AsyncClient) -> None:
    world.wechat.misbehave["unloggable"] = (0, b"")
    await come_back(browser, code="unloggable", state=await start_login(browser))
    log = world.process.log()
    assert "A WeChat login failed: wechat_unreachable" in log
    assert SECRET not in log
    assert "unloggable" not in log


async def test_without_settings_the_error_is_not_configured(api: Any) -> None:
    async with client_for(api.url) as client:
        for path in ("authorize", "callback?code=x&state=y"):
            answer = await client.get(f"/api/auth/wechat/{path}")
            assert (answer.status_code, answer.json()["data"]) == (400, {"error": "not_configured"})
