"""What the gate refuses, and the one table from error code to HTTP status."""

from __future__ import annotations

STATUS_BY_CODE = {
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "not_a_file": 404,
    "stale_epoch": 409,
    "not_bound": 409,
    "key_reused": 409,
    "invalid": 400,
    "length_required": 411,
    "too_large": 413,
    "box_unavailable": 503,
    "vnc_unavailable": 503,
    "no_space": 507,
    "internal": 500,
}


class RefusedError(Exception):
    """`code` is public; `str(error)` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """What the box says beyond our own codes is its caller's mistake or its own trouble: 400."""
        return STATUS_BY_CODE.get(self.code, 400)
