"""HTTP endpoints of the WeChat login."""

from __future__ import annotations

import hashlib
import logging
import secrets
from typing import Annotated
from urllib.parse import urlencode, urlsplit, urlunsplit
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from moorage_api.dependencies import Credentials, ResourcesDep, Users, current_user, subject_of
from moorage_api.errors import DomainError, NotConfiguredError, UnavailableError
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.routes import Subject
from moorage_api.limits.windows import Bucket
from moorage_api.resources import Resources
from moorage_api.settings import Settings
from moorage_api.text import StorableText
from moorage_api.wechat.client import Scope, WechatClient, WechatError
from moorage_api.wechat.service import WechatAccounts
from moorage_api.wechat.states import LIFETIME, Pending, States

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/auth/wechat", tags=["auth"])

COOKIE = "moorage_wechat"
MAX_CODE_LENGTH = 512

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


class Login:
    """The parts of the WeChat login, built from the settings."""

    def __init__(self, resources: Resources) -> None:
        settings = resources.settings
        self.frontend_url = settings.wechat_frontend_url
        self.callback_url = settings.wechat_callback_url
        self.states = States(resources.redis, settings.jwt_secret.get_secret_value(), resources.now)
        self.accounts = WechatAccounts(resources.db, resources.tokens, resources.now)
        self.client = WechatClient(
            app_id=settings.wechat_app_id,
            secret=settings.wechat_app_secret.get_secret_value(),
            open_url=settings.wechat_open_url,
            api_url=settings.wechat_api_url,
        )


def is_configured(settings: Settings) -> bool:
    return bool(
        settings.wechat_app_id
        and settings.wechat_app_secret.get_secret_value()
        and settings.wechat_callback_url
        and settings.wechat_frontend_url
    )


async def wechat_login(resources: ResourcesDep) -> Login:
    if not is_configured(resources.settings):
        raise NotConfiguredError("Login with WeChat is not configured; an administrator can set MOORAGE_WECHAT_…")
    return Login(resources)


LoginDep = Annotated[Login, Depends(wechat_login)]


@router.get("/authorize")
async def authorize(
    login: LoginDep,
    resources: ResourcesDep,
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
    pending = Pending(client_state=state)
    if link:
        user = await current_user(credentials, users)
        browser = secrets.token_urlsafe(24)
        pending = Pending(state, str(user.id), digest(browser))
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
    resources: ResourcesDep,
    code: Annotated[str, Query(description="From WeChat; missing if the user declined")] = "",
    state: Annotated[str, Query(description="The state in the URL from `authorize`")] = "",
) -> RedirectResponse:
    """Redirect the browser to the front end.

    The query has `access_token`, `refresh_token` and `token_type`, or `linked`, or `error` and `error_description`.
    `state` is the one that the front end gave to `authorize`.
    """
    client_state = ""
    try:
        await resources.windows.spend(Bucket.WRITES, subject_of(request, resources, Subject.ADDRESS))
        pending = await login.states.take(state)
        if pending is None:
            raise WechatError("invalid_state", "This login is unknown, has expired or was already used; start it again")
        client_state = pending.client_state
        answer = await finish(login, pending, code, cookie=request.cookies.get(COOKIE, ""))
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


async def finish(login: Login, pending: Pending, code: str, *, cookie: str) -> dict[str, str]:
    """Log in or link, and return the query for the front end. Raises WechatError, DomainError."""
    if not code:
        raise WechatError("access_denied", "The user declined the login at WeChat")
    if len(code) > MAX_CODE_LENGTH:
        raise WechatError("invalid_code", "This is not a code from WeChat; start the login again")
    if pending.link_user_id and not secrets.compare_digest(digest(cookie), pending.browser):
        raise WechatError("invalid_state", "This login was started in another browser; start it again in this one")
    user = await login.client.user_of(code)
    if pending.link_user_id:
        await login.accounts.link(user, user_id=UUID(pending.link_user_id))
        return {"linked": "true"}
    pair = await login.accounts.log_in(user)
    return {"access_token": pair.access_token, "refresh_token": pair.refresh_token, "token_type": "bearer"}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
