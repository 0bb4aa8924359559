"""Map every error to an HTTP status and an envelope."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import asyncpg
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from moorage_api import errors
from moorage_api.http.request_id import get_request_id
from moorage_common.logging_setup import log_context

logger = logging.getLogger(__name__)

STATUS_BY_ERROR: dict[type[errors.DomainError], HTTPStatus] = {
    errors.InvalidError: HTTPStatus.BAD_REQUEST,
    errors.OutboundRefusedError: HTTPStatus.BAD_REQUEST,
    errors.NotConfiguredError: HTTPStatus.BAD_REQUEST,
    errors.UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    errors.ForbiddenError: HTTPStatus.FORBIDDEN,
    errors.NotFoundError: HTTPStatus.NOT_FOUND,
    errors.ConflictError: HTTPStatus.CONFLICT,
    errors.TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.SkillRefusedError: HTTPStatus.BAD_REQUEST,
    errors.SkillTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.LimitedError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.FencedError: HTTPStatus.CONFLICT,
}

WORD_BY_STATUS: dict[int, str] = {
    400: errors.InvalidError.code,
    404: errors.NotFoundError.code,
    405: "method_not_allowed",
    413: errors.TooLargeError.code,
}
"""`data.error` of responses that the framework itself creates."""


def envelope_response(status: int, msg: str, data: Any = None, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"code": int(status), "msg": msg, "data": data}, status_code=status, headers=headers)


async def render_domain_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.DomainError)
    headers = {}
    if isinstance(error, errors.LimitedError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    data = error.details if isinstance(error, errors.LimitedError) else {"error": error.code, **error.details}
    return envelope_response(STATUS_BY_ERROR[type(error)], str(error), data, headers)


async def render_validation_error(_: Request, error: Exception) -> JSONResponse:
    """List the invalid fields without their values, because a value may be a password.

    An invalid value in the path is a 404: nothing can have such an id or name.
    """
    assert isinstance(error, RequestValidationError)
    if any(item["loc"][0] == "path" for item in error.errors()):
        return envelope_response(404, "Nothing with this id or name exists", {"error": errors.NotFoundError.code})
    fields = [{"field": field_name(item["loc"]), "message": item["msg"]} for item in error.errors()]
    return envelope_response(
        422, "The request is not valid", jsonable_encoder({"error": "validation", "fields": fields})
    )


def field_name(location: tuple[int | str, ...]) -> str:
    """Format a location as "body.password". Invalid JSON has a position instead of a field, and it is left out."""
    return ".".join(str(part) for part in location if isinstance(part, str) or len(location) > 2)


async def render_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    word = WORD_BY_STATUS.get(error.status_code)
    data = {"error": word} if word else None
    return envelope_response(error.status_code, str(error.detail), data, dict(error.headers or {}))


async def render_dependency_away(_: Request, error: Exception) -> JSONResponse:
    logger.warning("A server that the request needs does not answer: %s", type(error).__name__)
    part = "Redis" if isinstance(error, RedisError) else "The database"
    return envelope_response(503, f"{part} is not available; try again shortly", {"error": "unavailable"})


async def render_dbapi_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DBAPIError)
    if error.connection_invalidated:
        return await render_dependency_away(request, error)
    return await render_unexpected(request, error)


async def render_gone_client(_: Request, error: Exception) -> JSONResponse:
    """The client disconnected while it sent the request. No one receives this response, and nothing is logged."""
    assert isinstance(error, ClientDisconnect)
    return envelope_response(400, "The request ended too early and nothing was stored", {"error": "invalid"})


async def render_unexpected(request: Request, error: Exception) -> JSONResponse:
    """Starlette calls this outside of every middleware, so the request's id is set here again."""
    request_id = get_request_id(request.scope)
    with log_context(request_id=request_id):
        logger.error("Unexpected error", exc_info=error)
    message = f"An internal error occurred. Try again, or report the request id {request_id}"
    response = envelope_response(500, message, {"error": "internal", "request_id": request_id})
    response.headers["X-Request-ID"] = request_id
    return response


def install(app: FastAPI) -> None:
    app.add_exception_handler(errors.DomainError, render_domain_error)
    app.add_exception_handler(RequestValidationError, render_validation_error)
    app.add_exception_handler(HTTPException, render_http_exception)
    for away in (
        RedisError,
        OperationalError,
        InterfaceError,
        PoolTimeoutError,
        ConnectionError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
    ):
        app.add_exception_handler(away, render_dependency_away)
    app.add_exception_handler(ClientDisconnect, render_gone_client)
    app.add_exception_handler(DBAPIError, render_dbapi_error)
    app.add_exception_handler(Exception, render_unexpected)
