"""Settings of `moorage up`, read from the environment. docs/settings.md is made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from moorage_api.users.schemas import RegisterRequest
from moorage_local.errors import StartError

DEFAULT_PORT = 8000


class Options(BaseSettings):
    """Each is MOORAGE_<NAME>. A service whose address is given is used as it is, and not started."""

    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_", extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """The address at which the api listens."""
    port: int | None = Field(default=None, ge=0, le=65535)
    """The port at which the api listens. Without it 8000, or the next free port. A given port that is in use is an
    error."""
    data_dir: Path = Path("~/.local/share/moorage")
    """The directory in which everything is kept: databases, files, generated passwords and logs."""

    database_url: SecretStr | None = None
    """The URL of your PostgreSQL. Without it `moorage up` starts one."""
    redis_url: SecretStr | None = None
    """The URL of your Redis or Valkey. Without it `moorage up` starts Valkey."""
    s3_endpoint: str | None = None
    """Your object store as `host:port`. Without it `moorage up` starts one. It needs both keys beside it."""
    s3_access_key: str | None = None
    """The access key of your object store."""
    s3_secret_key: SecretStr | None = None
    """The secret key of your object store."""
    s3_secure: bool = False
    """Whether your object store is reached by HTTPS."""
    s3_bucket: str = "moorage"
    """The bucket in your object store."""
    s3_region: str = "us-east-1"
    """The region of your object store."""

    mcp_paths: str = ""
    """Directories with the programs of MCP servers that are commands, separated by colons. The servers can read them.
    """

    jwt_secret: SecretStr | None = Field(default=None, min_length=32)
    """The secret that signs users' tokens. Without it one is generated and kept in the data directory."""
    admin_username: str = "admin"
    """The name of the first admin, who is made at the first start."""
    admin_password: SecretStr | None = None
    """The password of the first admin. Without it one is generated and shown once."""

    @field_validator("database_url")
    @classmethod
    def _add_driver(cls, url: SecretStr | None) -> SecretStr | None:
        """Also accept the schemes `postgres` and `postgresql`, without the driver."""
        scheme, separator, rest = (url.get_secret_value() if url else "").partition("://")
        if scheme in ("postgres", "postgresql"):
            return SecretStr(f"postgresql+asyncpg{separator}{rest}")
        return url

    @model_validator(mode="after")
    def _check_s3_is_complete(self) -> Self:
        if self.s3_endpoint and not (self.s3_access_key and self.s3_secret_key):
            raise ValueError("MOORAGE_S3_ENDPOINT needs MOORAGE_S3_ACCESS_KEY and MOORAGE_S3_SECRET_KEY beside it")
        return self

    @model_validator(mode="after")
    def _check_admin(self) -> Self:
        check_account(self.admin_username, self.admin_password or SecretStr("a password that is made up"))
        return self

    @classmethod
    def from_environment(cls) -> Self:
        """Read the options. Raises StartError that names the variables but shows no value, which may be a secret."""
        try:
            return cls()
        except ValidationError as error:
            raise invalid_environment(error) from None


def invalid_environment(error: ValidationError) -> StartError:
    lines = [
        f"{'MOORAGE_' + str(item['loc'][0]).upper() + ': ' if item['loc'] else ''}{item['msg']}"
        for item in error.errors()
    ]
    return StartError("\n".join(line.removeprefix("Value error, ") for line in lines))


def describe_problem(item: ErrorDetails) -> str:
    """Say what a value must be. pydantic counts the "items" of a password, because it is a secret to pydantic."""
    if item["type"] in ("too_short", "string_too_short"):
        return f"must have at least {item['ctx']['min_length']} characters"
    if item["type"] in ("too_long", "string_too_long"):
        return f"must have at most {item['ctx']['max_length']} characters"
    return f"is not valid: {item['msg']}"


def check_account(username: str, password: SecretStr) -> None:
    """Check the admin's name and password by the rules of registration. Raises ValueError."""
    try:
        RegisterRequest(username=username, password=password)
    except ValidationError as error:
        problems = [f"the {item['loc'][0]} of the admin {describe_problem(item)}" for item in error.errors()]
        raise ValueError("; ".join(problems)) from None
