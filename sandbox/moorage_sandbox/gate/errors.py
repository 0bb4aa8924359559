"""The error of a refused request, and the table from error codes to HTTP statuses."""

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


BOX_UNAVAILABLE = "The sandbox is starting or was restarted, try again"
INVALID_ANSWER = "The sandbox sent an answer that is not valid"


class RefusalError(Exception):
    """The gate refuses a request. Clients decide by `code`; `str(error)` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """The HTTP status. The box has more codes than the table; they are all 400."""
        return STATUS_BY_CODE.get(self.code, 400)
