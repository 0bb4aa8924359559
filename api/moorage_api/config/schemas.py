"""Request and response bodies of the app-config module."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import Url

from moorage_api.text import HeaderSecret, StorableText


def check_base_url(text: str) -> str:
    """Check that it is an http(s) URL without user, query or fragment, and remove a slash at the end."""
    url = Url(text)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("must be an http or https URL")
    if url.username or url.password or url.query or url.fragment:
        raise ValueError("must have no user, query or fragment; put the key into `api_key`")
    return text.strip().rstrip("/")


BaseUrl = Annotated[StorableText, Field(max_length=2048), AfterValidator(check_base_url)]

DEFAULT_TEMPERATURE = 0.7
DEFAULT_MAX_TOKENS = 8192


class LlmConfigRead(BaseModel):
    """The model's configuration without the API key, which is never returned."""

    model_config = ConfigDict(protected_namespaces=())

    base_url: str
    model_name: str
    temperature: float
    max_tokens: int


class LlmConfigUpdate(BaseModel):
    """If `api_key` is missing or empty, the stored key is kept."""

    model_config = ConfigDict(protected_namespaces=())

    base_url: BaseUrl
    api_key: Annotated[HeaderSecret, Field(max_length=4096)] | None = None
    model_name: StorableText = Field(min_length=1, max_length=200)
    temperature: float = Field(default=DEFAULT_TEMPERATURE, ge=0, le=2, allow_inf_nan=False)
    max_tokens: int = Field(default=DEFAULT_MAX_TOKENS, ge=1, le=1_000_000)


class AgentConfig(BaseModel):
    max_iterations: int = Field(default=100, ge=1, le=999)
    """Most model requests in one step of a plan. The setting `MOORAGE_AGENT_MAX_MODEL_CALLS` limits the whole run."""
    max_retries: int = Field(default=3, ge=2, le=9)
    """Attempts of a model request that fails or has an unusable answer, before the run ends with an error."""
    max_search_results: int = Field(default=10, ge=2, le=29)
    """Most results of one web search."""
