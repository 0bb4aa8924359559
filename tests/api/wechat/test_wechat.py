"""Login with WeChat against a server that speaks its protocol: every way through, and every way it can fail."""

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

from moorage_api.wechat.states import Pending, States
from support.accounts import Person, admin, client_for, data, register
from support.processes import Platform, Process, shared_platform
from support.services import Services, run
from support.wechat import APP_ID, SECRET, WechatStub, running_wechat

CALLBACK = "https://moorage.example/api/auth/wechat/callback"
FRONTEND = "https://app.example/login?from=wechat"


@dataclass(frozen=True)
class World:
    process: Process
    platform: Platform
    wechat: WechatStub

    @property
    def url(self) -> str:
        return self.process.url


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    with running_wechat() as wechat:
        changes = {
            "wechat_app_id": APP_ID,
            "wechat_app_secret": SECRET,
            "wechat_callback_url": CALLBACK,
            "wechat_frontend_url": FRONTEND,
            "wechat_api_url": wechat.url,
        }
        with shared_platform(services, **changes) as platform:
            yield World(run(platform.start_api()), platform, wechat)


@pytest.fixture
async def browser(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Keeps cookies, as browsers do; https, because the cookie is for that alone."""
    async with client_for(world.url) as client:
        yield client


@pytest.fixture
async def alice(world: World) -> AsyncIterator[Person]:
    async with await register(world.url) as person:
        yield person


async def state_of(client: httpx.AsyncClient, **query: Any) -> str:
    url: str = data(await client.get("/api/auth/wechat/authorize", params=query))["authorize_url"]
    return dict(parse_qsl(urlsplit(url).query))["state"]


async def come_back(client: httpx.AsyncClient, **query: str) -> dict[str, str]:
    """What the front end is told by the redirect."""
    response = await client.get("/api/auth/wechat/callback", params=query)
    assert response.status_code == 302
    assert (response.headers["cache-control"], response.headers["referrer-policy"]) == ("no-store", "no-referrer")
    url = urlsplit(response.headers["location"])
    assert (url.scheme, url.netloc, url.path) == ("https", "app.example", "/login")
    told = dict(parse_qsl(url.query))
    assert told.pop("from") == "wechat"
    return told


async def account_of(world: World, told: dict[str, str]) -> dict[str, Any]:
    assert told["token_type"] == "bearer", told
    async with client_for(world.url, told["access_token"]) as client:
        refreshed = await client.post("/api/auth/refresh", json={"refresh_token": told["refresh_token"]})
        assert refreshed.status_code == 200
        me: dict[str, Any] = data(await client.get("/api/auth/me"))
        return me


def someone(prefix: str = "o") -> str:
    return f"{prefix}{uuid4().hex}"


@pytest.mark.parametrize(
    ("scope", "page"),
    [
        ("snsapi_base", "/connect/oauth2/authorize"),
        ("snsapi_userinfo", "/connect/oauth2/authorize"),
        ("snsapi_login", "/connect/qrconnect"),
    ],
)
async def test_people_are_sent_to_wechat(browser: httpx.AsyncClient, scope: str, page: str) -> None:
    answer = data(await browser.get("/api/auth/wechat/authorize", params={"state": "mine", "scope": scope}))
    url = urlsplit(answer["authorize_url"])
    query = dict(parse_qsl(url.query))
    state = query.pop("state")
    assert (url.netloc, url.path, url.fragment) == ("open.weixin.qq.com", page, "wechat_redirect")
    assert query == {"appid": APP_ID, "redirect_uri": CALLBACK, "response_type": "code", "scope": scope}
    assert state.isalnum()
    assert len(state) <= 128
    assert SECRET not in answer["authorize_url"]


async def test_another_scope_is_refused(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/api/auth/wechat/authorize", params={"scope": "everything"})
    assert answer.status_code == 422


async def test_somebody_new_gets_an_account_and_comes_back_to_it(world: World, browser: httpx.AsyncClient) -> None:
    openid = someone()
    world.wechat.knows("first", openid, nickname="小明 🐟", headimgurl="https://wx.example/0.png")
    told = await come_back(browser, code="first", state=await state_of(browser, state="from the front end"))
    assert told["state"] == "from the front end"
    me = await account_of(world, told)
    assert {key: me[key] for key in ("username", "email", "nickname", "avatar", "role", "status")} == {
        "username": "",
        "email": "",
        "nickname": "小明 🐟",
        "avatar": "https://wx.example/0.png",
        "role": "user",
        "status": "active",
    }
    world.wechat.knows("second", openid, nickname="Another name")
    again = await account_of(world, await come_back(browser, code="second", state=await state_of(browser)))
    assert again == me


async def test_where_the_profile_may_not_be_read_it_is_not_asked_for(world: World, browser: httpx.AsyncClient) -> None:
    world.wechat.knows("base", someone(), scope="snsapi_base", nickname="Unseen")
    asked = len(world.wechat.asked)
    me = await account_of(world, await come_back(browser, code="base", state=await state_of(browser)))
    assert me["nickname"] == ""
    assert world.wechat.asked[asked:] == ["/sns/oauth2/access_token"]


async def test_one_person_of_two_apps_has_one_account(world: World, browser: httpx.AsyncClient) -> None:
    """Known by openid first; the unionid that comes with a later login finds them from another app."""
    openid, unionid = someone(), someone("u")
    accounts = []
    for code, who, more in (
        ("plain", openid, {}),
        ("with union", openid, {"unionid": unionid}),
        ("other app", someone(), {"unionid": unionid}),
    ):
        world.wechat.knows(code, who, **more)
        accounts.append(await account_of(world, await come_back(browser, code=code, state=await state_of(browser))))
    assert len({account["id"] for account in accounts}) == 1


async def test_two_logins_at_once_make_one_account(world: World) -> None:
    openid = someone()

    async def log_in(code: str) -> str:
        async with client_for(world.url) as client:
            world.wechat.knows(code, openid)
            return str(
                (await account_of(world, await come_back(client, code=code, state=await state_of(client))))["id"]
            )

    assert len(set(await asyncio.gather(*(log_in(f"at once {number}") for number in range(4))))) == 1


async def link(alice: Person, world: World, code: str, *, cookie: bool = True) -> dict[str, str]:
    answer = await alice.client.get("/api/auth/wechat/authorize", params={"link": "true"})
    state = dict(parse_qsl(urlsplit(data(answer)["authorize_url"]).query))["state"]
    set_cookie = answer.headers["set-cookie"]
    assert all(part in set_cookie for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/api/auth/wechat"))
    async with client_for(world.url) as client:
        if cookie:
            client.headers["Cookie"] = set_cookie.partition(";")[0]
        return await come_back(client, code=code, state=state)


async def test_wechat_is_linked_to_an_account_there_is(world: World, alice: Person, browser: httpx.AsyncClient) -> None:
    openid = someone()
    assert await link(alice, world, world.wechat.knows("link", openid)) == {"linked": "true"}
    world.wechat.knows("after", openid)
    me = await account_of(world, await come_back(browser, code="after", state=await state_of(browser)))
    assert me["id"] == alice.id


async def test_linking_is_for_who_began_it(world: World, alice: Person, browser: httpx.AsyncClient) -> None:
    """With a token, in the same browser, and not somebody who has an account already."""
    assert (await browser.get("/api/auth/wechat/authorize", params={"link": "true"})).status_code == 401
    openid = someone()
    told = await link(alice, world, world.wechat.knows("lured", openid), cookie=False)
    assert told["error"] == "invalid_state"
    taken = await account_of(world, await come_back(browser, code="lured", state=await state_of(browser)))
    assert taken["id"] != alice.id
    assert (await link(alice, world, world.wechat.knows("taken", openid)))["error"] == "conflict"


FAILURES: dict[str, tuple[int, bytes]] = {
    "wechat_unreachable": (0, b""),
    "wechat_unreachable by 500": (500, b"oops"),
    "wechat_unreachable by a redirect": (302, b"http://127.0.0.1:9/elsewhere"),
    "wechat_failed by HTML": (200, b"<html>"),
    "wechat_failed by a list": (200, b"[]"),
    "wechat_failed by too much": (200, b'{"openid": "' + b"x" * 100_000 + b'"}'),
    "wechat_failed by nobody": (200, b'{"access_token": "a", "scope": "snsapi_base"}'),
    "wechat_failed by no text": (200, b'{"access_token": "a", "openid": 7, "scope": "snsapi_base"}'),
    "wechat_refused": (200, b'{"errcode": 40163, "errmsg": "code been used"}'),
}


@pytest.mark.parametrize("reason", FAILURES)
async def test_a_failure_at_wechat_is_told_to_the_front_end(
    world: World, browser: httpx.AsyncClient, reason: str
) -> None:
    world.wechat.misbehave[reason] = FAILURES[reason]
    told = await come_back(browser, code=reason, state=await state_of(browser, state="mine"))
    assert set(told) == {"error", "error_description", "state"}
    assert told["error"] == reason.split(" ")[0]
    assert told["error_description"]


async def test_a_profile_of_somebody_else_is_refused(world: World, browser: httpx.AsyncClient) -> None:
    world.wechat.knows("mixed", someone(), answers_as=someone())
    assert (await come_back(browser, code="mixed", state=await state_of(browser)))["error"] == "wechat_failed"


async def test_a_state_is_ours_and_good_once(world: World, browser: httpx.AsyncClient) -> None:
    openid = someone()
    world.wechat.knows("once", openid)
    state = await state_of(browser)
    assert "access_token" in await come_back(browser, code="once", state=state)
    forged = state[:-1] + ("0" if state[-1] != "0" else "1")
    for wrong in (state, forged, "", "x", "\x00", "é" * 72, state * 3, "0" * 72):
        world.wechat.knows("stolen", openid)
        assert (await come_back(browser, code="stolen", state=wrong))["error"] == "invalid_state"
    told = await come_back(browser, code="stolen")
    assert told["error"] == "invalid_state"


async def test_a_state_ends(services: Services) -> None:
    """Also where Redis would still have it."""
    redis = Redis.from_url(services.valkey.url)
    began = datetime.now(UTC)
    times = iter([began, began, began + timedelta(minutes=11)])
    states = States(redis, "a secret", lambda: next(times))
    pending = Pending(client_state="mine")
    first, second = await states.begin(pending), await states.begin(pending)
    assert await states.take(first) is None
    assert await States(redis, "another secret", lambda: began).take(second) is None
    assert await States(redis, "a secret", lambda: began).take(second) == pending
    await redis.aclose()


async def test_declining_and_wrong_codes_are_told(world: World, browser: httpx.AsyncClient) -> None:
    assert (await come_back(browser, state=await state_of(browser)))["error"] == "access_denied"
    assert (await come_back(browser, code="unknown", state=await state_of(browser)))["error"] == "wechat_refused"
    assert (await come_back(browser, code="x" * 5000, state=await state_of(browser)))["error"] == "invalid_code"


async def test_a_banned_user_does_not_come_in_by_wechat(world: World, browser: httpx.AsyncClient) -> None:
    openid = someone()
    world.wechat.knows("before", openid)
    me = await account_of(world, await come_back(browser, code="before", state=await state_of(browser)))
    async with await admin(world.url, world.platform.database_url) as root:
        data(await root.client.put(f"/api/admin/users/{me['id']}/status", json={"status": "banned"}))
    world.wechat.knows("banned", openid)
    told = await come_back(browser, code="banned", state=await state_of(browser))
    assert (told["error"], "access_token" in told) == ("forbidden", False)


async def test_no_secret_and_no_code_is_logged(world: World, browser: httpx.AsyncClient) -> None:
    world.wechat.misbehave["unloggable"] = (0, b"")
    await come_back(browser, code="unloggable", state=await state_of(browser))
    log = world.process.log()
    assert "A WeChat login failed: wechat_unreachable" in log
    assert SECRET not in log
    assert "unloggable" not in log


async def test_without_settings_it_says_so(api: Any) -> None:
    async with client_for(api.url) as client:
        for path in ("authorize", "callback?code=x&state=y"):
            answer = await client.get(f"/api/auth/wechat/{path}")
            assert (answer.status_code, answer.json()["data"]) == (400, {"error": "not_configured"})
