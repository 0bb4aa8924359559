"""Client of WeChat's OAuth server: builds the authorization URL and exchanges a code for the user.

Source: developers.weixin.qq.com, "Web authorization". WeChat answers with HTTP 200 and `errcode` for errors, and sends
JSON as text/plain. Its URLs contain the app's secret, so the text of an HTTP client error is never shown or logged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

import httpx

Scope = Literal["snsapi_base", "snsapi_userinfo", "snsapi_login"]

TIMEOUT_SECONDS = 5.0
ANSWER_LIMIT_BYTES = 64 * 1024


class WechatError(Exception):
    """The login failed at WeChat or before it. `reason` is the word that the front end gets as `error`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class WechatUser:
    """`unionid` is the same in all apps of one WeChat developer account; None if the app belongs to none."""

    openid: str
    unionid: str | None
    nickname: str = ""
    avatar: str = ""


class WechatClient:
    def __init__(self, *, app_id: str, secret: str, open_url: str, api_url: str) -> None:
        self._app_id = app_id
        self._secret = secret
        self._open_url = open_url.rstrip("/")
        self._api_url = api_url.rstrip("/")

    def authorize_url(self, *, callback_url: str, scope: Scope, state: str) -> str:
        """Build the URL that the browser has to open.

        It works inside the WeChat app only, except with `snsapi_login`: then any browser shows a code to scan.
        """
        page = "qrconnect" if scope == "snsapi_login" else "oauth2/authorize"
        query = urlencode(
            {
                "appid": self._app_id,
                "redirect_uri": callback_url,
                "response_type": "code",
                "scope": scope,
                "state": state,
            }
        )
        return f"{self._open_url}/connect/{page}?{query}#wechat_redirect"

    async def fetch_user(self, code: str) -> WechatUser:
        """Exchange a code for the user. Fields that the scope does not include stay empty. Raises WechatError."""
        async with httpx.AsyncClient(
            base_url=self._api_url, timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
        ) as client:
            granted = await self._get(
                client,
                "/sns/oauth2/access_token",
                appid=self._app_id,
                secret=self._secret,
                code=code,
                grant_type="authorization_code",
            )
            openid = _read_text(granted, "openid", 128)
            if not openid:
                raise WechatError("wechat_failed", "WeChat's response has no openid; log in again")
            scopes = _read_text(granted, "scope", 200).split(",")
            if "snsapi_userinfo" not in scopes and "snsapi_login" not in scopes:
                return WechatUser(openid, _read_text(granted, "unionid", 128) or None)
            known = await self._get(
                client,
                "/sns/userinfo",
                access_token=_read_text(granted, "access_token", 1024),
                openid=openid,
                lang="zh_CN",
            )
        if _read_text(known, "openid", 128) != openid:
            raise WechatError("wechat_failed", "WeChat sent the profile of another user; log in again")
        avatar = _read_text(known, "headimgurl", 2048)
        return WechatUser(
            openid,
            _read_text(known, "unionid", 128) or _read_text(granted, "unionid", 128) or None,
            _read_text(known, "nickname", 100),
            avatar if avatar.startswith(("https://", "http://")) else "",
        )

    async def _get(self, client: httpx.AsyncClient, path: str, **query: str) -> dict[str, Any]:
        try:
            async with client.stream("GET", path, params=query) as response:
                status = response.status_code
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > ANSWER_LIMIT_BYTES:
                        raise WechatError("wechat_failed", "WeChat's response is too long; log in again later")
        except httpx.HTTPError as error:
            message = f"Could not reach WeChat ({type(error).__name__}); log in again later"
            raise WechatError("wechat_unreachable", message) from None
        if status != 200:
            raise WechatError("wechat_unreachable", f"WeChat answered with HTTP status {status}; log in again later")
        try:
            answer = json.loads(body)
        except ValueError:
            raise WechatError("wechat_failed", "WeChat's response is not JSON; log in again later") from None
        if not isinstance(answer, dict):
            raise WechatError("wechat_failed", "WeChat's response is not a JSON object; log in again later")
        if answer.get("errcode"):
            message = f"WeChat refused the login (errcode {int_of(answer['errcode'])}); log in again"
            raise WechatError("wechat_refused", message)
        return answer


def int_of(value: object) -> int:
    return value if isinstance(value, int) else 0


def _read_text(answer: dict[str, Any], name: str, limit: int) -> str:
    """Return a text field, cut to `limit` characters and without characters that PostgreSQL cannot store; else ""."""
    value = answer.get(name)
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "ignore").decode().replace("\x00", "")[:limit]
