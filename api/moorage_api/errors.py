"""Errors of the domain. Each transport (HTTP, stream, MCP, A2A) maps them to its own form."""

from __future__ import annotations

from typing import Any, ClassVar


class DomainError(Exception):
    """Base of every error that is shown to a caller.

    `code` is public: clients branch on it. `str(error)` is for people. `details` goes into the envelope's `data`.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


class InvalidError(DomainError):
    """The request is well formed but asks for something impossible."""

    code = "invalid"


class OutboundRefusedError(DomainError):
    """The platform must not connect to a configured URL, or to an address that it leads to."""

    code = "outbound_refused"


class UnauthenticatedError(DomainError):
    """The token is missing, invalid or expired: the caller has to refresh it or log in."""

    code = "unauthenticated"


class NotConfiguredError(DomainError):
    """This installation has no settings for the requested feature."""

    code = "not_configured"


class ForbiddenError(DomainError):
    """The caller may not do this."""

    code = "forbidden"


class NotFoundError(DomainError):
    code = "not_found"


class ConflictError(DomainError):
    """The request conflicts with something that exists, for example a taken name."""

    code = "conflict"


class TooLargeError(DomainError):
    code = "too_large"


class SkillRefusedError(InvalidError):
    """The skill cannot be installed. `reason` is one word for programs; the message is for people."""

    code = "skill_refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


class SkillTooLargeError(TooLargeError):
    """The skill is too large to be installed. `reason` is one word for programs; the message is for people."""

    code = "skill_too_large"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


class LimitedError(DomainError):
    """Too many requests, or too many connections at the same time.

    Source of the message: shared contract, "Rate limit". It is the same for every limit.
    """

    code = "limited"
    MESSAGE = "请求过多，请稍后重试"

    def __init__(self, *, retry_after_seconds: int) -> None:
        self.retry_after_seconds = max(1, retry_after_seconds)
        super().__init__(self.MESSAGE, retry_after=self.retry_after_seconds)


class UnavailableError(DomainError):
    """Something that the request needs (database, Redis, object store, sandbox) does not answer. A retry may help."""

    code = "unavailable"


class FencedError(DomainError):
    """Another runner has taken over this writer's run. The writer must stop, and its writes are refused."""

    code = "fenced"

    def __init__(self, message: str = "Another runner has taken this run over") -> None:
        super().__init__(message)
