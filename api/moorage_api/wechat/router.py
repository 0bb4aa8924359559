"""HTTP endpoints of the WeChat login."""

from __future__ import annotations

import logging
import secrets
from typing import Annotated
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from moorage_api.errors import DomainError, NotConfiguredError, UnavailableError
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide
from moorage_api.limits.request_windows import Bucket
from moorage_api.text import StorableText
from moorage_api.users.callers import Credentials, Limits, Users, current_user
from moorage_api.wechat.client import Scope, WechatError
from moorage_api.wechat.login import WechatLogin, digest_of
from moorage_api.wechat.login_states import LIFETIME, PendingLogin

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/auth/wechat", tags=["auth"])

COOKIE = "moorage_wechat"

FAILURES = (
    WechatError,
    DomainError,
    RedisError,
    SQLAlchemyError,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
"""Errors that a callback turns into a redirect: the user's browser is there, and would show a JSON envelope."""


class AuthorizeResponse(BaseModel):
    authorize_url: str


async def wechat_login(login: Annotated[WechatLogin, Depends(provide(WechatLogin))]) -> WechatLogin:
    if not login.is_configured:
        raise NotConfiguredError("Login with WeChat is not configured; an administrator can set MOORAGE_WECHAT_…")
    return login


LoginDep = Annotated[WechatLogin, Depends(wechat_login)]


@router.get("/authorize")
async def authorize(
    login: LoginDep,
    credentials: Credentials,
    users: Users,
    response: Response,
    state: Annotated[StorableText, Query(max_length=512, description="Returned to the front end unchanged")] = "",
    scope: Annotated[Scope, Query(description="`snsapi_login` shows a code to scan")] = "snsapi_userinfo",
    link: Annotated[bool, Query(description="Link WeChat to the caller's account; needs a token")] = False,
) -> Envelope[AuthorizeResponse]:
    """Get the URL that the browser has to open. It is valid for ten minutes and for one login.

    With `link`, a cookie ties it to this browser, so that an attacker cannot make another person link their WeChat to
    the attacker's account.
    """
    pending = PendingLogin(client_state=state)
    if link:
        user = await current_user(credentials, users)
        browser = secrets.token_urlsafe(24)
        pending = PendingLogin(state, str(user.id), digest_of(browser))
        response.set_cookie(
            COOKIE,
            browser,
            max_age=int(LIFETIME.total_seconds()),
            path="/api/auth/wechat",
            httponly=True,
            samesite="lax",
            secure=login.callback_url.startswith("https:"),
        )
    url = login.client.authorize_url(
        callback_url=login.callback_url, scope=scope, state=await login.states.begin(pending)
    )
    return ok(AuthorizeResponse(authorize_url=url))


@router.get("/callback", response_class=RedirectResponse, status_code=302)
async def callback(
    login: LoginDep,
    request: Request,
    limits: Limits,
    code: Annotated[str, Query(description="From WeChat; missing if the user declined")] = "",
    state: Annotated[str, Query(description="The state in the URL from `authorize`")] = "",
) -> RedirectResponse:
    """Redirect the browser to the front end.

    The query has `access_token`, `refresh_token` and `token_type`, or `linked`, or `error` and `error_description`.
    `state` is the one that the front end gave to `authorize`.
    """
    client_state = ""
    try:
        await limits.spend(Bucket.WRITES, request)
        pending = await login.states.take(state)
        if pending is None:
            raise WechatError("invalid_state", "This login is unknown, has expired or was already used; start it again")
        client_state = pending.client_state
        answer = await login.finish(pending, code, cookie=request.cookies.get(COOKIE, ""))
    except FAILURES as error:
        logger.warning("A WeChat login failed: %s", reason_of(error))
        answer = {"error": reason_of(error), "error_description": description_of(error)}
    if client_state:
        answer["state"] = client_state
    redirect = RedirectResponse(
        with_query(login.frontend_url, answer),
        status_code=302,
        headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
    )
    redirect.delete_cookie(COOKIE, path="/api/auth/wechat")
    return redirect


def reason_of(error: Exception) -> str:
    """The `error` word for the front end."""
    if isinstance(error, WechatError):
        return error.reason
    return error.code if isinstance(error, DomainError) else UnavailableError.code


def description_of(error: Exception) -> str:
    if isinstance(error, (WechatError, DomainError)):
        return str(error)
    return "A server that the login needs does not answer; try again shortly"


def with_query(url: str, query: dict[str, str]) -> str:
    """Add `query` to the query of `url`."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(query))))))
