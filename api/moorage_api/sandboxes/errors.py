"""What the gate's refusals mean to us."""

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
    """For a reader of files and shells. What is not the caller's doing is a sandbox that can't be had now.

    `forbidden` is the box's own file permission: the agent's user may not read that path either.
    """
    if error.code == "not_bound":  # its run ended before it was taken: nothing of the session is in it
        return NotFoundError(NO_SANDBOX)
    if error.code == "forbidden":
        return InvalidError(f"The sandbox's own user may not read this: {error}")
    return DOMAIN_ERROR_BY_CODE.get(error.code, UnavailableError)(str(error))
