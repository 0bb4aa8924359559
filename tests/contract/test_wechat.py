"""WeChat's OAuth. With CONTRACT_WECHAT=1 the server is set up to use the suite's stub for WeChat."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from contract.peers import Peers
from contract.server import Caller, ServerUnderTest, parse_envelope
from contract.spec import proves

AUTHORIZE = "/api/auth/wechat/authorize"
CALLBACK = "/api/auth/wechat/callback"

is_set_up = os.environ.get("CONTRACT_WECHAT") == "1"


def redirect(caller: Caller, **params: str) -> dict[str, list[str]]:
    """The query of the URL to which the callback redirects."""
    response: httpx.Response = caller.send("GET", CALLBACK, params=params, follow_redirects=False)
    assert response.status_code in (302, 303, 307), response.text
    at = urlsplit(response.headers["location"])
    return parse_qs(at.query or at.fragment)


@proves("GET /api/auth/wechat/authorize: not-set-up")
@pytest.mark.skipif(is_set_up, reason="WeChat is set up on this server")
def test_without_wechat_the_endpoints_report_it(nobody: Caller) -> None:
    """Without WeChat the address of the front end is unknown, too, so the callback cannot redirect."""
    for path in (AUTHORIZE, CALLBACK):
        answer = parse_envelope(nobody.send("GET", path, params={"code": "good", "state": "x"}))
        assert answer.status in (400, 404, 503)
        assert "wechat" in answer.msg.lower()


@proves("GET /api/auth/wechat/authorize: success")
@pytest.mark.skipif(not is_set_up, reason="CONTRACT_WECHAT is not 1")
def test_the_authorize_url_is_complete(nobody: Caller) -> None:
    for scope in ("snsapi_userinfo", "snsapi_login"):
        params = {"state": "from-the-client"} | ({} if scope == "snsapi_userinfo" else {"scope": scope})
        address = nobody.get(AUTHORIZE, params=params)["authorize_url"]
        query = parse_qs(urlsplit(address).query)
        assert query["response_type"] == ["code"]
        assert query["scope"] == [scope]
        assert query["state"]
        assert query["redirect_uri"][0].endswith(CALLBACK)


@proves("GET /api/auth/wechat/callback: success")
@pytest.mark.skipif(not is_set_up, reason="CONTRACT_WECHAT is not 1")
def test_a_valid_code_redirects_with_a_token(nobody: Caller, server: ServerUnderTest, peers: Peers) -> None:
    people = set()
    for _ in range(2):
        state = parse_qs(urlsplit(nobody.get(AUTHORIZE)["authorize_url"]).query)["state"][0]
        query = redirect(nobody, code="good", state=state)
        people.add(server.with_token(query["access_token"][0]).get("/api/auth/me")["id"])
    assert len(people) == 1


@proves("GET /api/auth/wechat/callback: refused")
@pytest.mark.skipif(not is_set_up, reason="CONTRACT_WECHAT is not 1")
def test_every_failure_redirects_with_an_error(nobody: Caller) -> None:
    for params in ({}, {"code": "good"}, {"code": "good", "state": "not-ours"}, {"state": "not-ours"}):
        query = redirect(nobody, **params)
        assert any("error" in key for key in query)
        assert not any("token" in key for key in query)
