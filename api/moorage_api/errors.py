"""What can go wrong, in the words of the domain. Each transport renders these its own way."""

from __future__ import annotations

from typing import Any, ClassVar


class DomainError(Exception):
    """Base of every error that a caller is meant to see.

    `code` is public: clients branch on it. `str(error)` is for people. `details` goes into the envelope's `data`.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


class InvalidError(DomainError):
    """The request is well formed but asks for something that cannot be."""

    code = "invalid"


class OutboundRefusedError(DomainError):
    """A configured URL, or where it leads, is not one that the platform connects to."""

    code = "outbound_refused"


class UnauthenticatedError(DomainError):
    """No token, a bad one or an expired one: the caller should refresh or log in."""

    code = "unauthenticated"


class NotConfiguredError(DomainError):
    """A part that this installation has no settings for."""

    code = "not_configured"


class ForbiddenError(DomainError):
    code = "forbidden"


class NotFoundError(DomainError):
    code = "not_found"


class ConflictError(DomainError):
    code = "conflict"


class TooLargeError(DomainError):
    code = "too_large"


class SkillRefusedError(InvalidError):
    """This is no skill that can be installed. `reason` is one word for programs, the message is for people."""

    code = "skill_refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


class SkillTooLargeError(TooLargeError):
    """See SkillRefusedError."""

    code = "skill_too_large"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


class LimitedError(DomainError):
    """Too many requests, or too many connections at once.

    Source of its words: shared contract, "Rate limit". They are the same whatever was too much.
    """

    code = "limited"
    MESSAGE = "请求过多，请稍后重试"

    def __init__(self, *, retry_after_seconds: int) -> None:
        self.retry_after_seconds = max(1, retry_after_seconds)
        super().__init__(self.MESSAGE, retry_after=self.retry_after_seconds)


class UnavailableError(DomainError):
    """A part we depend on (database, Redis, object store, sandbox) is away. Trying later may help."""

    code = "unavailable"


class FencedError(DomainError):
    """This writer's lease was taken over: it must stop, and nothing it writes counts any more."""

    code = "fenced"
