"""Settings of the api and the runner, read from the environment once, in `main`. docs/settings.md is made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from moorage_sandbox.protocol import MAX_PICTURE_BYTES

DEFAULT_LLM_BASE_URL = "https://api.deepseek.com"


class Settings(BaseSettings):
    """Everything below `main` receives values or this object; nothing else reads the environment."""

    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_", extra="ignore", validate_by_name=True, use_attribute_docstrings=True
    )

    database_url: SecretStr
    """The URL of PostgreSQL: `postgresql+asyncpg://user:password@host:port/name`. It must lead to the server itself,
    not to a pooler in transaction mode."""
    redis_url: SecretStr
    """The URL of Redis or Valkey: `redis://:password@host:port/0`."""
    s3_endpoint: str
    """The object store as `host:port`, without a scheme."""
    s3_access_key: str
    """The access key of the object store."""
    s3_secret_key: SecretStr
    """The secret key of the object store."""
    s3_secure: bool = False
    """Whether the object store is reached by HTTPS."""
    s3_bucket: str = "moorage"
    """The bucket. It belongs to one installation: archives that the database does not know are removed from it."""
    s3_region: str = "us-east-1"
    """The region that requests to the object store are signed for."""
    s3_public_endpoint: str | None = None
    """The address at which browsers reach the object store, as `host:port` or as scheme and host. Download links are
    signed for it. Without it they are signed for `MOORAGE_S3_ENDPOINT`."""

    jwt_secret: SecretStr = Field(min_length=32)
    """The secret that signs users' access and refresh tokens (HS256). It has at least 32 bytes."""
    signing_key_file: Path
    """A PEM file with this process's Ed25519 key. It signs the tokens for sandboxes. api and runner have one each."""
    signing_key_id: str
    """The name of that key in the trust file of the gates."""
    sandboxes: Literal["local", "cluster"] = "local"
    """Who owns the sandboxes: `local` is the sandbox host of this machine, `cluster` is the operator of a cluster."""
    sandbox_host_socket: Path = Path("/run/moorage/host.sock")
    """The Unix socket of the sandbox host. It is used with `MOORAGE_SANDBOXES=local`."""
    cluster_namespace: str | None = None
    """The namespace in which AgentSessions are made. Without it they are made in the namespace of this pod."""
    kubeconfig: Path | None = None
    """A kubeconfig file with the credentials for the cluster. Without it this pod's service account is used."""
    sandbox_start_seconds: float = Field(120, gt=0)
    """How long a sandbox on a cluster may take to become ready. After that the run gets an error."""
    sandbox_idle_seconds: float = Field(0, ge=0)
    """A sandbox is suspended when its session did nothing for this long. What is in the sandbox is lost. 0 means
    never."""
    internal_port: int = Field(0, ge=0, le=65535)
    """The port at which sandbox pods fetch the archives of their first skills. It is read-only. 0 means no port."""

    database_pool_size: int = 10
    """How many database connections a process keeps. Under load it opens up to twice as many plus 10."""
    access_token_seconds: int = 30 * 60
    """How long an access token is valid."""
    refresh_token_seconds: int = 7 * 24 * 3600
    """How long a refresh token is valid."""
    refresh_single_use: bool = False
    """Whether a refresh token can be used only once."""
    hashing_concurrency: int = 2
    """How many passwords are hashed at once. Each hash takes 64 MiB and one core for about 0.15 s."""

    stream_max_seconds: int = 600
    """The longest life of one event stream. Keep it below the read timeout of your proxy: then the api ends the stream
    and the client resumes it."""
    stream_heartbeat_seconds: float = 15
    """How often a stream without events sends a heartbeat."""
    stream_poll_seconds: float = 2
    """How often a process reads events from the database that were stored but not announced through Redis."""
    keep_alive_seconds: int = Field(75, ge=1)
    """How long an unused connection stays open. Make it longer than your proxy keeps its connections to the api (60 s
    in nginx): otherwise the api may close one that the proxy is about to use."""
    cors_origins: list[str] = []
    """The origins that browsers may call the api from, as a JSON list."""
    open_config: bool = False
    """Whether the configuration endpoints need no token, as the original contract says. It is logged as a warning."""

    config_key: SecretStr | None = Field(default=None, min_length=32)
    """The key that encrypts the secrets of stored configuration. Without it a key is derived from
    `MOORAGE_JWT_SECRET`."""
    mcp_commands_url: str | None = None
    """Where MCP servers that are commands run: `unix:/path` or `tcp://host:port`. Without it the sandbox host runs
    them."""
    mcp_commands_token: SecretStr = SecretStr("")
    """The token that a `tcp://` address of `MOORAGE_MCP_COMMANDS_URL` asks for."""
    outbound_private: str = Field(default="llm,mcp,a2a", pattern="^((llm|mcp|a2a|skills)(,(llm|mcp|a2a|skills))*)?$")
    """The purposes for which a configured URL may lead to a private address, separated by commas: `llm`, `mcp`, `a2a`,
    `skills`. Empty means that no URL may."""
    outbound_closed_ports: list[int] = []
    """Ports of this machine that no configured URL may lead to, as a JSON list. The ports of PostgreSQL, Redis and the
    object store are always closed."""
    trusted_proxies: list[str] = []
    """Addresses or networks of your own proxies, as a JSON list. The header X-Forwarded-For is believed only from
    them."""
    limit_window_seconds: int = Field(default=60, ge=1)
    """The length of the window in which requests are counted."""
    limit_reads: int = Field(default=120, ge=1)
    """How many reading requests one user may make in a window. Before a login each address and each account is
    counted."""
    limit_writes: int = Field(default=60, ge=1)
    """How many writing requests one user may make in a window."""
    limit_chats: int = Field(default=60, ge=1)
    """How many chat messages one user may send in a window."""
    limit_pictures: int = Field(default=1200, ge=1)
    """How many pictures one address may load in a window. A page loads all pictures of a session at once, and the
    links carry no user."""
    limit_model_tests: int = Field(default=10, ge=1)
    """How many tests of a model one admin may start in a window. A test sends six requests to the model."""
    limit_streams: int = Field(default=10, ge=1)
    """How many event streams one user may have open at the same time, on all replicas together."""
    limit_screens: int = Field(default=5, ge=1)
    """How many screens one user may watch at the same time, on all replicas together."""
    connection_lease_seconds: float = Field(default=15, ge=1)
    """How long the open streams of a killed replica still count."""

    wechat_app_id: str = ""
    """The app id of WeChat. WeChat login is on when this, the secret and both URLs are set."""
    wechat_app_secret: SecretStr = SecretStr("")
    """The app secret of WeChat."""
    wechat_callback_url: str = ""
    """Where WeChat sends the browser back to: `/api/auth/wechat/callback` of the api, as the browser reaches it."""
    wechat_frontend_url: str = ""
    """Where the callback then sends the browser, with tokens or an error in the query."""
    wechat_open_url: str = "https://open.weixin.qq.com"
    """The address of WeChat's login page."""
    wechat_api_url: str = "https://api.weixin.qq.com"
    """The address of WeChat's API."""

    upload_limit_bytes: int = 100 * 1024 * 1024
    """The largest file that can be uploaded."""

    skills_root_dir: Path = Field(
        default=Path("/app/data/skills"), validation_alias=AliasChoices("MOORAGE_SKILLS_ROOT_DIR", "SKILLS_ROOT_DIR")
    )
    """The directory in which this process caches the archives of skills. The archives themselves are in the object
    store."""
    skills_cache_bytes: int = Field(1024**3, ge=0)
    """The largest size of that cache. Archives that were not read for the longest time are removed first."""
    skills_local_roots: str = ""
    """Directories of the api's machine from which skills may be installed, separated by colons."""
    skills_github_archive_url: str = "https://codeload.github.com"
    """The server that the tarballs of GitHub repositories are downloaded from."""

    llm_base_url: str = DEFAULT_LLM_BASE_URL
    """The address of the model's API (OpenAI Chat Completions). It is used until an admin stores a configuration."""
    llm_api_key: SecretStr = SecretStr("")
    """The model's API key. It is used until an admin stores a configuration."""
    llm_model: str = "deepseek-flash"
    """The model's name. It is used until an admin stores a configuration."""
    llm_max_functions: int = Field(default=128, ge=32)
    """How many functions the model is offered at most. OpenAI's own servers refuse a request with more than 128."""
    llm_context_tokens: int | None = Field(default=None, ge=4_000)
    """The size of the model's context window in tokens. Without it the window is learnt from the model's server, and
    64000 tokens are assumed until then."""
    llm_result_chars: int = Field(default=12_000, ge=2_000, le=200_000)
    """The longest result of a tool that the model gets, in characters. A small window gets less: 12 % of its room for
    the conversation, but at least 2000. The result names the file of the sandbox that holds the whole."""
    llm_answer_chars: int = Field(default=4_000_000, ge=10_000)
    """The longest answer of the model, in characters, with its thoughts. A longer one is stopped and asked for again
    once."""
    llm_repeated_chars: int = Field(default=20_000, ge=2_000)
    """An answer that repeats the same words for so many characters is stopped and asked for again once."""
    llm_max_calls: int = Field(default=16, ge=1, le=1_000)
    """How many calls of one answer are run. The model is told to send the others again."""
    llm_max_pictures: int = Field(default=10, ge=1, le=100)
    """How many pictures one request shows to a model that sees. When there are more, the older half becomes words."""
    llm_picture_bytes: int = Field(default=1024**2, ge=10_000, le=MAX_PICTURE_BYTES)
    """The largest picture that a model gets, in bytes. The sandbox makes a larger one smaller."""
    llm_picture_pixels: int = Field(default=1280 * 1024, ge=10_000, le=4_000_000)
    """The largest picture that a model gets, in pixels. The sandbox makes a larger one smaller."""
    llm_patience_seconds: float = Field(default=300, ge=0)
    """How long trouble of the model's server (rate limits, overload, lost connections) is waited out."""
    llm_first_byte_seconds: float = Field(default=300, gt=0)
    """How long the model's server may take to begin an answer. A local model first loads and reads the request."""
    llm_idle_seconds: float = Field(default=120, gt=0)
    """How long the model's server may be silent in the middle of an answer."""
    llm_list_retry_seconds: float = Field(default=600, ge=0)
    """After how many seconds a model's server that did not list its models within 5 s is asked for them again."""
    llm_test_seconds: float = Field(default=60, gt=0, le=600)
    """How long each of the five parts of a test of a model may take."""
    agent_max_model_calls: int = Field(default=1000, ge=1)
    """How many times the model is asked for one message of a user at most. The limit of each step is part of the
    configuration that an admin stores (`max_iterations`)."""
    agent_max_repeats: int = Field(default=10, ge=3)
    """How often a model may repeat the same calls with the same results before the work is ended."""
    agent_max_steps: int = Field(default=30, ge=1, le=200)
    """How many steps a plan has at most. What a model plans beyond them becomes part of the last step."""
    agent_max_failed_steps: int = Field(default=5, ge=1)
    """How many steps in a row may fail before the work is ended."""
    searxng_url: str | None = None
    """A SearXNG instance for web search. Without it the package `ddgs` searches."""

    runner_concurrency: int = 8
    """How many runs one runner works on at the same time."""
    runner_host: str = "0.0.0.0"  # noqa: S104 - probes and metrics come from outside the pod
    """The address at which a runner listens for probes and metrics."""
    runner_port: int = Field(0, ge=0, le=65535)
    """The port of a runner's probes and metrics. 0 means no port."""
    sandbox_patience_seconds: float = Field(default=60, ge=0)
    """How long a run waits for a sandbox that the host or the cluster refuses, before the run ends with an error."""
    lease_seconds: float = 15
    """How long a run stays with a runner that no longer renews its lease."""
    sweep_seconds: float = 30
    """How often a runner retries work that could not be done when it was asked for, and looks for idle sandboxes."""
