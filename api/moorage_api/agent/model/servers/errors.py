"""Errors of a model, with texts that people can act on. They contain the server's own words and never the API key."""

from __future__ import annotations

from moorage_api.agent.model.incoming.answers import Answer
from moorage_api.agent.model.servers.refusals import Refusal

RETRIED_STATUSES = frozenset({0, 408, 409, 425, 429, 498, 499})
"""0 stands for an error inside a stream."""
MAY_BE_LENGTH = frozenset({400, 413, 422, 500})
"""A server that cannot take a long request answers with one of these, and does not always say why."""

MAY_BE_PICTURE = frozenset({400, 404, 413, 415, 422, 500})


MAY_BE_HISTORY = frozenset({403, 500})
"""Firewalls answer with 403 to words in a conversation, and templates of local servers fail with 500."""


class LlmError(Exception):
    """The model cannot be used. `code` is public API. The text says what to change and never contains the API key."""

    def __init__(self, code: str, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        """HTTP status of the server's answer; 0 if it gave none."""

    @property
    def may_be_length(self) -> bool:
        """A shorter request may succeed."""
        return self.status in MAY_BE_LENGTH

    @property
    def may_be_history(self) -> bool:
        """The server refused the request itself. Another form of the conversation may succeed."""
        return self.code == "llm_refused" or self.status in MAY_BE_HISTORY

    @property
    def may_be_picture(self) -> bool:
        """The server may have refused a picture. A request without pictures may succeed."""
        return self.status in MAY_BE_PICTURE


class WindowFullError(LlmError):
    """The request was longer than the model's context window. A shorter request may succeed."""

    def __init__(self, code: str, message: str, *, status: int = 0, window_tokens: int | None = None) -> None:
        super().__init__(code, message, status=status)
        self.window_tokens = window_tokens
        """The size of the window, if the server named it."""


class RefusedError(Exception):
    """The server answered with an error document."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.server_text)
        self.refusal = refusal


class RetryableError(Exception):
    """A retry of the same request may succeed.

    `is_half`: the answer ended without a reason. Then one retry is enough.
    `half`: the answer, if the server at least marked its end. It is returned after the retry.
    `is_lasting`: a wrong configuration is as likely as trouble of the server, so it is not waited out for long.
    """

    def __init__(
        self,
        error: LlmError,
        *,
        after_seconds: float | None = None,
        is_half: bool = False,
        half: Answer | None = None,
        is_lasting: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_seconds = after_seconds
        self.is_half = is_half
        self.half = half
        self.is_lasting = is_lasting


def explain(refusal: Refusal, *, base_url: str, model: str) -> Exception:
    """The error for a refusal: a RetryableError if the same request may succeed later, otherwise an LlmError."""
    status, server_text = refusal.status, refusal.server_text or "it gave no reason"
    if refusal.is_unread_call:
        failure = LlmError("llm_failed", f"The model wrote a call that its server could not read: {server_text}")
        return RetryableError(failure, is_half=True, half=Answer(refusal.generation, lacks_call=True))
    if refusal.is_no_credit:
        return LlmError("llm_unauthorized", f"The account at the model's server has no credit left: {server_text}")
    if status in (401, 403):
        return LlmError(
            "llm_unauthorized",
            f"The model's server at {base_url} refused the API key{' or the request' if status == 403 else ''}: "
            f"set a valid `api_key` ({status}: {server_text})",
            status=status,
        )
    if refusal.is_window_full:
        return WindowFullError(
            "llm_window_full",
            f"The conversation is too long for the model: {server_text}",
            status=status,
            window_tokens=refusal.window_tokens,
        )
    if status == 404:
        return LlmError(
            "llm_not_found",
            f'{base_url} does not have the model "{model}" or does not offer chat completions: '
            f"check `base_url` and `model_name` ({server_text})",
        )
    if status == 0:
        failure = LlmError("llm_unavailable", f"The model's server interrupted its answer: {server_text}")
        return RetryableError(failure, after_seconds=refusal.retry_after_seconds)
    if status in RETRIED_STATUSES or status >= 500:
        code = "llm_rate_limited" if status == 429 else "llm_unavailable"
        failure = LlmError(code, f"The model's server at {base_url} answered {status}: {server_text}", status=status)
        return RetryableError(failure, after_seconds=refusal.retry_after_seconds)
    return LlmError(
        "llm_refused", f"The model's server at {base_url} refused the request ({status}): {server_text}", status=status
    )
