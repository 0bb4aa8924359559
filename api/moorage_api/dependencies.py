"""FastAPI dependencies of routes: resources, limits and the caller's account.

All of them are coroutines, because FastAPI runs a plain function in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from moorage_api.errors import ForbiddenError, UnauthenticatedError
from moorage_api.http.routes import Rule, Subject
from moorage_api.limits.addresses import client_address
from moorage_api.limits.leases import Connection
from moorage_api.limits.windows import Bucket, account_subject, address_subject, user_subject
from moorage_api.resources import Resources
from moorage_api.users.account import Account
from moorage_api.users.service import UserService

bearer = HTTPBearer(auto_error=False, description="Access token from POST /api/auth/login")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def get_resources(connection: HTTPConnection) -> Resources:
    resources = connection.app.state.resources
    assert isinstance(resources, Resources)
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]


async def user_service(resources: ResourcesDep) -> UserService:
    return UserService(
        resources.db,
        resources.passwords,
        resources.tokens,
        resources.now,
        refresh_single_use=resources.settings.refresh_single_use,
    )


async def limited(connection: HTTPConnection, resources: ResourcesDep) -> None:
    """Count the request in the window that the table of routes names. Every route has this dependency."""
    scope = connection.scope
    if scope["type"] != "http":
        return  # the route of a WebSocket counts by itself, because it refuses with a close code
    rule: Rule = connection.app.state.rules[scope["endpoint"], scope["method"]]
    if rule.bucket is not None and not rule.asks_itself:
        await resources.windows.spend(rule.bucket, subject_of(connection, resources, rule.subject))


def subject_of(connection: HTTPConnection, resources: Resources, subject: Subject) -> str:
    """Return the user if the token is valid, else the address. Whether the user has access is checked later."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if subject is Subject.CALLER and scheme.lower() == "bearer":
        try:
            return user_subject(resources.tokens.read_access(token).user_id)
        except UnauthenticatedError:
            pass  # if the route needs a token, it refuses the request itself
    return address_subject(client_address(connection, resources.trusted_proxies))


async def spend_for_accounts(resources: Resources, *names: str | None) -> None:
    """Count a login also for the account that it names, whether or not that account exists."""
    subjects = [account_subject(name) for name in names if name]
    if subjects:
        await resources.windows.spend(Bucket.WRITES, *subjects)


Users = Annotated[UserService, Depends(user_service)]


async def current_user(credentials: Credentials, users: Users) -> Account:
    if credentials is None:
        raise UnauthenticatedError("This endpoint needs a bearer token; log in first")
    return await users.authenticate(credentials.credentials)


CurrentUser = Annotated[Account, Depends(current_user)]


async def stream_lease(user: CurrentUser, resources: ResourcesDep) -> AsyncIterator[None]:
    """Count one stream of the user until the response has ended."""
    async with resources.leases.hold(Connection.STREAM, user.id):
        yield


StreamLease = Depends(stream_lease)


async def admin_user(user: CurrentUser) -> Account:
    if not user.is_admin:
        raise ForbiddenError("Only a super_admin may do this")
    return user


AdminUser = Annotated[Account, Depends(admin_user)]


async def config_writer(resources: ResourcesDep, credentials: Credentials, users: Users) -> None:
    """Allow a super_admin, or any caller if MOORAGE_OPEN_CONFIG is set."""
    if not resources.settings.open_config:
        await admin_user(await current_user(credentials, users))


ConfigWriter = Depends(config_writer)
