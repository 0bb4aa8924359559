"""What an admin can add to a model's configuration beside the contract's five fields: schemas and what they become.

Headers and time limits belong to a server, so they apply while `base_url` is the same. Body fields, the window and the
choice about the temperature belong to a model, so they apply while `base_url` and `model_name` are the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from moorage_api.agent.trial import MIN_WINDOW_TOKENS, PartName, TrialOutcome
from moorage_api.config.schemas import BaseUrl
from moorage_api.errors import InvalidError
from moorage_api.text import HeaderName, HeaderSecret, StorableText, check_plain_header_value, is_storable

MAX_HEADERS = 32
MAX_BODY_CHARS = 16_384
MAX_BODY_DEPTH = 8

OWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to the connection, or that say how we encode a request."""

OWN_FIELDS = frozenset(
    {"messages", "model", "stream", "tools", "tool_choice", "functions", "function_call", "n", "stream_options"}
)
"""Fields of a request that the agent must set itself, or its work cannot go on."""


def check_headers(headers: dict[str, Any]) -> dict[str, Any]:
    names = [name.lower() for name in headers]
    if own := sorted(set(names) & OWN_HEADERS):
        raise ValueError(f"must not have {_join(own)}: Moorage sets these headers itself")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"must not have {_join(twice)} twice")
    return headers


def check_body(body: dict[str, Any]) -> dict[str, Any]:
    if own := sorted(body.keys() & OWN_FIELDS):
        raise ValueError(f"must not have {_join(own)}: Moorage sets these fields itself")
    _check_json(body, levels=MAX_BODY_DEPTH)
    if len(json.dumps(body)) > MAX_BODY_CHARS:
        raise ValueError(f"must have at most {MAX_BODY_CHARS} characters as JSON")
    return body


def _check_json(value: Any, *, levels: int) -> None:
    if levels < 0:
        raise ValueError(f"must not be nested deeper than {MAX_BODY_DEPTH} levels")
    if isinstance(value, str) and not is_storable(value):
        raise ValueError("must not contain NUL characters or lone surrogates")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must not contain NaN or infinite numbers")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_json(name, levels=levels)
            _check_json(item, levels=levels - 1)
    elif isinstance(value, list):
        for item in value:
            _check_json(item, levels=levels - 1)


def _join(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


HeaderText = Annotated[SecretStr, Field(max_length=4096), AfterValidator(check_plain_header_value)]
Headers = Annotated[dict[HeaderName, HeaderText | None], Field(max_length=MAX_HEADERS), AfterValidator(check_headers)]
Body = Annotated[dict[str, Any], AfterValidator(check_body)]
ContextTokens = Annotated[int, Field(ge=4_000, le=10_000_000)]
WaitSeconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Patience = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class OptionFields(BaseModel):
    """Fields of requests that set options. A header whose value is null keeps its stored value."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    headers: Headers | None = None
    body: Body | None = None
    send_temperature: bool | None = None
    sees: bool | None = None
    context_tokens: ContextTokens | None = None
    first_byte_seconds: WaitSeconds | None = None
    idle_seconds: WaitSeconds | None = None
    patience_seconds: Patience | None = None


class LlmOptionsUpdate(OptionFields):
    """Fields that are missing stay as they are, and null goes back to the default. `headers` replaces all headers.

    `base_url` and `model_name` are not stored: they say which model the options are for. `forget_learnt` removes what
    was learnt about the model. `learnt` has no effect: it is allowed because a response has it.
    """

    base_url: BaseUrl | None = None
    model_name: Annotated[StorableText, Field(max_length=200)] | None = None
    forget_learnt: bool = False
    learnt: dict[str, Any] | None = None


class LlmTestRequest(OptionFields):
    """A model to try without storing it. Fields that are missing are those of the configuration.

    The stored key and headers are used only if `base_url` is missing or the configured one.
    """

    base_url: BaseUrl | None = None
    api_key: Annotated[HeaderSecret, Field(max_length=4096)] | None = None
    model_name: Annotated[StorableText, Field(min_length=1, max_length=200)] | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    window_tokens: int = Field(default=MIN_WINDOW_TOKENS, ge=1_000, le=1_000_000)
    """Size of the request that must be read whole."""


class LlmTestPart(BaseModel):
    """`message` says in words what was seen, or why the part does not work."""

    part: PartName
    outcome: TrialOutcome
    message: str
    seconds: float


class LlmTestResult(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    base_url: str
    model_name: str
    usable: bool
    """Whether the agent can work with this model: a plan and a tool call work."""
    parts: list[LlmTestPart]


class LlmOptionsRead(BaseModel):
    """The options that apply to the configured model. The values of headers are never returned."""

    model_config = ConfigDict(protected_namespaces=())

    base_url: str
    model_name: str
    headers: dict[str, None]
    """The names of the headers, each with null. A request with the same object keeps the stored values."""
    body: dict[str, Any]
    """Fields that are added to each request."""
    send_temperature: bool
    """Whether `temperature` is sent."""
    sees: bool | None
    """Whether the model gets pictures; null to decide by its name and by what its server refused."""
    context_tokens: int | None
    """Size of the model's window; null for the setting `MOORAGE_LLM_CONTEXT_TOKENS`, or to learn it."""
    first_byte_seconds: float | None
    """How long an answer may take to begin; null for the setting `MOORAGE_LLM_FIRST_BYTE_SECONDS`."""
    idle_seconds: float | None
    """How long an answer may pause; null for the setting `MOORAGE_LLM_IDLE_SECONDS`."""
    patience_seconds: float | None
    """How long trouble of the server is waited out; null for the setting `MOORAGE_LLM_PATIENCE_SECONDS`."""
    learnt: dict[str, Any]
    """What runs have learnt about the model, such as parameters that its server refuses."""


@dataclass(frozen=True)
class LlmOptions:
    """The options for one model, with the headers in plain text. None stands for the platform's setting."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secret, so they are not in the object's text, which a log could show."""
    body: Mapping[str, Any] = field(default_factory=dict)
    send_temperature: bool = True
    sees: bool | None = None
    context_tokens: int | None = None
    first_byte_seconds: float | None = None
    idle_seconds: float | None = None
    patience_seconds: float | None = None


SERVER_FIELDS = ("headers", "first_byte_seconds", "idle_seconds", "patience_seconds")
MODEL_FIELDS = ("body", "send_temperature", "sees", "context_tokens")


def select_options(stored: Mapping[str, Any], *, base_url: str, model_name: str) -> dict[str, Any]:
    """The stored fields that apply to a model. `headers` are sealed and `body` is JSON text.

    Options that were stored for another server are never used, so its headers cannot be sent to this one.
    """
    if stored.get("base_url") != base_url:
        return {}
    names = SERVER_FIELDS + (MODEL_FIELDS if stored.get("model_name") == model_name else ())
    return {name: stored[name] for name in names if name in stored}


def change_options(before: Mapping[str, Any], update: OptionFields, *, seal: Callable[[str], str]) -> dict[str, Any]:
    """The stored form after an update. Raises InvalidError for a header without a value that none is stored for."""
    changed = dict(before)
    for name in SERVER_FIELDS + MODEL_FIELDS:
        if name not in update.model_fields_set:
            continue
        value = getattr(update, name)
        if name == "headers":
            value = _seal_headers(value or {}, before.get("headers", {}), seal=seal)
        elif name == "body":
            value = json.dumps(value or {})
        changed[name] = value
        if value is None:
            del changed[name]
    return changed


def _seal_headers(
    headers: Mapping[str, SecretStr | None], stored: Mapping[str, str], *, seal: Callable[[str], str]
) -> dict[str, str]:
    kept = {name.lower(): sealed for name, sealed in stored.items()}
    if missing := sorted(name for name, value in headers.items() if value is None and name.lower() not in kept):
        raise InvalidError(f"The header {_join(missing)} has no stored value that could be kept: give its value")
    return {
        name: kept[name.lower()] if value is None else seal(value.get_secret_value()) for name, value in headers.items()
    }


def to_options_read(
    selected: Mapping[str, Any], *, base_url: str, model_name: str, learnt: Mapping[str, Any]
) -> LlmOptionsRead:
    return LlmOptionsRead(
        base_url=base_url,
        model_name=model_name,
        headers=dict.fromkeys(selected.get("headers", {})),
        body=json.loads(selected.get("body", "{}")),
        send_temperature=selected.get("send_temperature", True),
        sees=selected.get("sees"),
        context_tokens=selected.get("context_tokens"),
        first_byte_seconds=selected.get("first_byte_seconds"),
        idle_seconds=selected.get("idle_seconds"),
        patience_seconds=selected.get("patience_seconds"),
        learnt=dict(learnt),
    )


def open_options(selected: Mapping[str, Any], *, unseal: Callable[[str], str]) -> LlmOptions:
    """The options with their headers in plain text. Raises what `unseal` raises."""
    fields = {name: value for name, value in selected.items() if name not in ("headers", "body")}
    headers = {name: unseal(sealed) for name, sealed in selected.get("headers", {}).items()}
    return LlmOptions(headers=headers, body=json.loads(selected.get("body", "{}")), **fields)
