"""Settings of the api and the runner, read from the environment once, in `main`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything below `main` receives values or this object; nothing else reads the environment."""

    model_config = SettingsConfigDict(env_prefix="MOORAGE_", extra="ignore", validate_by_name=True)

    database_url: SecretStr
    """postgresql+asyncpg://user:password@host:port/name"""
    redis_url: SecretStr
    s3_endpoint: str
    """host:port, no scheme"""
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_secure: bool = False
    s3_bucket: str = "moorage"
    s3_region: str = "us-east-1"
    s3_public_endpoint: str | None = None
    """host:port, or a URL of scheme and host: presigned URLs are signed for this one. Without it, for `s3_endpoint`."""

    jwt_secret: SecretStr = Field(min_length=32)
    """Signs users' access and refresh tokens (HS256); at least 32 bytes."""
    signing_key_file: Path
    """PEM of this process's Ed25519 key for sandbox access. api and runner have one each."""
    signing_key_id: str
    sandboxes: Literal["local", "cluster"] = "local"
    """Who owns the sandboxes: the sandbox host of this machine, or the operator of a cluster."""
    sandbox_host_socket: Path = Path("/run/moorage/host.sock")
    """Unix socket of the local sandbox host."""
    cluster_namespace: str | None = None
    """Where AgentSessions are made; without it in the namespace of this pod."""
    kubeconfig: Path | None = None
    """Credentials for the cluster; without it those of this pod's service account."""
    sandbox_start_seconds: float = Field(120, gt=0)
    """How long a sandbox of a cluster may take to be ready before the run is told that there is none."""
    sandbox_idle_seconds: float = Field(0, ge=0)
    """A sandbox whose session did nothing for so long is suspended, and what is in it is lost. 0: never."""
    internal_port: int = Field(0, ge=0, le=65535)
    """Port of the read-only archives that sandbox pods fetch their first skills from. 0: none."""

    database_pool_size: int = 10
    access_token_seconds: int = 30 * 60
    refresh_token_seconds: int = 7 * 24 * 3600
    refresh_single_use: bool = False
    hashing_concurrency: int = 2
    """Password hashes at once: each takes 64 MiB and a core for about 0.15 s."""

    stream_max_seconds: int = 600
    """Longest life of one event stream. Below the ingress's read timeout, so we end it and the client resumes."""
    stream_heartbeat_seconds: float = 15
    stream_poll_seconds: float = 2
    cors_origins: list[str] = []
    open_config: bool = False
    """Restores the letter of the contract: configuration endpoints need no token. Logged as a warning."""

    config_key: SecretStr | None = Field(default=None, min_length=32)
    """Encrypts the secrets of stored configuration. Without it a key is derived from `jwt_secret`."""
    mcp_commands_url: str | None = None
    """Where MCP servers that are commands run: `unix:/path` or `tcp://host:port`; else the sandbox host runs them."""
    mcp_commands_token: SecretStr = SecretStr("")
    """What a tcp:// one asks for."""
    outbound_private: str = Field(default="llm,mcp,a2a", pattern="^((llm|mcp|a2a|skills)(,(llm|mcp|a2a|skills))*)?$")
    """For what private addresses may be configured, of: llm, mcp, a2a, skills. Empty: for nothing."""
    outbound_closed_ports: list[int] = []
    """Further ports of this machine that nothing configured may lead to, as PostgreSQL's, Redis' and S3's own."""
    trusted_proxies: list[str] = []
    """Addresses or networks of our own proxies: what they write in X-Forwarded-For is believed, nothing else is."""
    limit_window_seconds: int = Field(default=60, ge=1)
    limit_reads: int = Field(default=120, ge=1)
    """Requests in a window for each user, and before a login for each address and account; so are the next three."""
    limit_writes: int = Field(default=60, ge=1)
    limit_chats: int = Field(default=60, ge=1)
    limit_pictures: int = Field(default=1200, ge=1)
    """For each address: a page shows all pictures of a session at once, and its links carry no user."""
    limit_streams: int = Field(default=10, ge=1)
    """Event streams of one user at the same time, over all replicas."""
    limit_screens: int = Field(default=5, ge=1)
    connection_lease_seconds: float = Field(default=15, ge=1)
    """So long a killed replica's streams still count."""

    wechat_app_id: str = ""
    """WeChat login is on where this, the secret and both URLs are set."""
    wechat_app_secret: SecretStr = SecretStr("")
    wechat_callback_url: str = ""
    """Where WeChat sends the browser back to: our /api/auth/wechat/callback as the browser reaches it."""
    wechat_frontend_url: str = ""
    """Where the callback sends the browser on to, with tokens or an error in the query."""
    wechat_open_url: str = "https://open.weixin.qq.com"
    wechat_api_url: str = "https://api.weixin.qq.com"

    upload_limit_bytes: int = 100 * 1024 * 1024

    skills_root_dir: Path = Field(
        default=Path("/app/data/skills"), validation_alias=AliasChoices("MOORAGE_SKILLS_ROOT_DIR", "SKILLS_ROOT_DIR")
    )
    """This replica's cache of the archives of skills; they themselves are in the object store."""
    skills_cache_bytes: int = Field(1024**3, ge=0)
    """Most that the cache holds: what was not read for longest goes first."""
    skills_local_roots: str = ""
    """Directories of the api's machine, separated by colons, below which skills may be installed from."""
    skills_github_archive_url: str = "https://codeload.github.com"
    """Where the tarballs of GitHub repositories come from."""

    llm_base_url: str = "https://api.deepseek.com"
    llm_api_key: SecretStr = SecretStr("")
    llm_model: str = "deepseek-chat"
    """Defaults until an admin stores a configuration."""
    llm_max_functions: int = Field(default=128, ge=32)
    """Functions offered to the model in all. OpenAI's own servers refuse a request with more than 128."""
    searxng_url: str | None = None
    """Search goes to this SearXNG instance; without it `ddgs` is used."""

    runner_concurrency: int = 8
    runner_host: str = "0.0.0.0"  # noqa: S104 - probes and metrics come from outside the pod
    runner_port: int = Field(0, ge=0, le=65535)
    """Port of a runner's probes and metrics. 0: none."""
    lease_seconds: float = 15
    sweep_seconds: float = 30
    """How often a runner looks for what could not be done when it was asked for, and for idle sandboxes."""
