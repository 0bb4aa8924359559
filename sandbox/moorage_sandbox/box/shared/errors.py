"""The error type of the box, and the translation of operating system errors to it."""

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
    """A call failed. Clients decide by `code`; `message` tells the model what is wrong and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@contextmanager
def translate_os_errors(subject: str) -> Iterator[None]:
    """Raise an OSError of the block again as a BoxError whose message begins with `subject`."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, subject) from error


def from_os_error(error: OSError, subject: str) -> BoxError:
    code = CODE_BY_ERRNO.get(error.errno or 0, "internal")
    return BoxError(code, f"{subject}: {error.strerror or error}")
