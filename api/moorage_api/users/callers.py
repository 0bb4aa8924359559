"""FastAPI dependencies of routes: the caller's account and limits.

All are coroutines, because FastAPI runs a plain function in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from moorage_api.errors import ForbiddenError, UnauthenticatedError
from moorage_api.http.access import AccessSettings
from moorage_api.http.provided import provide, service_of
from moorage_api.http.routes import Rule, Subject
from moorage_api.limits.leases import ConnectionKind, Leases
from moorage_api.users.account import Account
from moorage_api.users.request_limits import RequestLimits
from moorage_api.users.service import UserService

bearer = HTTPBearer(auto_error=False, description="Access token from POST /api/auth/login")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
Users = Annotated[UserService, Depends(provide(UserService))]
Limits = Annotated[RequestLimits, Depends(provide(RequestLimits))]
Access = Annotated[AccessSettings, Depends(provide(AccessSettings))]
ConnectionLeases = Annotated[Leases, Depends(provide(Leases))]


async def count_request(connection: HTTPConnection) -> None:
    """Count the request in the window that the table of routes names. Every route has this dependency."""
    scope = connection.scope
    if scope["type"] != "http":
        return  # the route of a WebSocket spends by itself, because it refuses with a close code
    rule: Rule = connection.app.state.rules[scope["endpoint"], scope["method"]]
    if rule.bucket is not None and not rule.counts_itself:
        token = bearer_token(connection) if rule.subject is Subject.CALLER else ""
        await service_of(connection, RequestLimits).spend(rule.bucket, connection, access_token=token)


def bearer_token(connection: HTTPConnection) -> str:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


async def current_user(credentials: Credentials, users: Users) -> Account:
    if credentials is None:
        raise UnauthenticatedError("This endpoint needs a bearer token; log in first")
    return await users.authenticate(credentials.credentials)


CurrentUser = Annotated[Account, Depends(current_user)]


async def stream_lease(user: CurrentUser, leases: ConnectionLeases) -> AsyncIterator[None]:
    """Count one stream of the user until the response has ended."""
    async with leases.hold(ConnectionKind.STREAM, user.id):
        yield


StreamLease = Depends(stream_lease)


async def admin_user(user: CurrentUser) -> Account:
    if not user.is_admin:
        raise ForbiddenError("Only a super_admin may do this")
    return user


AdminUser = Annotated[Account, Depends(admin_user)]


async def config_writer(access: Access, credentials: Credentials, users: Users) -> None:
    """Allow a super_admin, or any caller if MOORAGE_OPEN_CONFIG is set."""
    if not access.open_config:
        await admin_user(await current_user(credentials, users))


ConfigWriter = Depends(config_writer)
