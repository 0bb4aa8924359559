"""The one error a call may end with, and what the operating system's errors mean to a caller."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

CODE_BY_ERRNO = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ENXIO: "not_a_file",
    errno.EISDIR: "not_a_file",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.EROFS: "forbidden",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "too_large",
    errno.ENAMETOOLONG: "invalid",
    errno.ELOOP: "invalid",
    errno.EINVAL: "invalid",
    errno.ENOTEMPTY: "invalid",
    errno.EMFILE: "limit",
    errno.ENFILE: "limit",
    errno.EAGAIN: "limit",
    errno.ENOMEM: "limit",
}


class BoxError(Exception):
    """A refusal or failure with a code that clients branch on and a message that a model can act on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turn an OSError about `subject` into a BoxError that names it."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, subject) from error


def from_os_error(error: OSError, subject: str) -> BoxError:
    code = CODE_BY_ERRNO.get(error.errno or 0, "internal")
    return BoxError(code, f"{subject}: {error.strerror or error}")
