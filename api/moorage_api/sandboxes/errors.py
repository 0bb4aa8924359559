"""Convert the gate's errors to domain errors."""

from __future__ import annotations

from moorage_api.errors import DomainError, FencedError, InvalidError, NotFoundError, TooLargeError, UnavailableError
from moorage_sandbox.protocol import GateError

DOMAIN_ERROR_BY_CODE: dict[str, type[DomainError]] = {
    "not_found": NotFoundError,
    "not_a_file": NotFoundError,
    "too_large": TooLargeError,
    "invalid": InvalidError,
    "stale_epoch": FencedError,
}


NO_SANDBOX = "This session has no live sandbox; it gets one with the next message"


def as_domain_error(error: GateError) -> DomainError:
    """Convert an error for a reader of files and shells. Errors that the caller did not cause are UnavailableError.

    `forbidden` is a file permission in the sandbox: the agent's user may not read that path either.
    """
    if error.code == "not_bound":  # no run has used this sandbox yet, so it contains nothing of the session
        return NotFoundError(NO_SANDBOX)
    if error.code == "forbidden":
        return InvalidError(f"The sandbox's user may not read this file: {error}")
    return DOMAIN_ERROR_BY_CODE.get(error.code, UnavailableError)(str(error))
