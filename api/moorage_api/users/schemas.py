"""Request and response bodies of the auth and admin modules, and the normal form of names and e-mail addresses."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Literal, Self

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, model_validator

from moorage_api.text import StorableSecret, StorableText
from moorage_api.users.account import Account, Role, Status


def check_email(text: str) -> str:
    """Check the syntax and return the normal form. DNS is not queried, and domains for tests are accepted."""
    try:
        return validate_email(text, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from error


def empty_to_none(value: object) -> object:
    return None if value == "" else value


def normalize_email(text: str) -> str:
    """Return the normal form of an e-mail address (Unicode domain, composed accents). Invalid text stays unchanged."""
    try:
        return check_email(text)
    except ValueError:
        return text


def normalize_name(text: str) -> str:
    """Normalize letters with accents to NFC, because keyboards send them in different forms."""
    return unicodedata.normalize("NFC", text)


def check_visible(text: str) -> str:
    """Refuse invisible characters: with them, a name could look like the name of another user."""
    if not text.isprintable():
        raise ValueError("must not contain control characters or invisible characters")
    return text


Username = Annotated[
    Annotated[
        StorableText,
        Field(min_length=3, max_length=50, pattern=r"^\S(.*\S)?$"),
        AfterValidator(normalize_name),
        AfterValidator(check_visible),
    ]
    | None,
    BeforeValidator(empty_to_none),
]
Email = Annotated[
    Annotated[str, Field(max_length=254), AfterValidator(check_email)] | None, BeforeValidator(empty_to_none)
]
LoginName = Annotated[
    Annotated[StorableText, Field(max_length=254), AfterValidator(normalize_name)] | None,
    BeforeValidator(empty_to_none),
]
LoginEmail = Annotated[
    Annotated[StorableText, Field(max_length=254), AfterValidator(normalize_email)] | None,
    BeforeValidator(empty_to_none),
]


class RegisterRequest(BaseModel):
    """At least one of `username` and `email` is required."""

    username: Username = None
    email: Email = None
    password: StorableSecret = Field(min_length=6, max_length=128)
    nickname: StorableText | None = Field(default=None, max_length=100)

    @model_validator(mode="after")
    def _check_name_or_email(self) -> Self:
        if self.username is None and self.email is None:
            raise ValueError("username or email is required")
        return self


class LoginRequest(BaseModel):
    """At least one of `username` and `email` is required.

    A name or password that cannot be registered gives the response of a wrong login (401), not of invalid input (422).
    """

    username: LoginName = None
    email: LoginEmail = None
    password: SecretStr = Field(max_length=1000)

    @model_validator(mode="after")
    def _check_name_or_email(self) -> Self:
        if self.username is None and self.email is None:
            raise ValueError("username or email is required")
        return self


class RefreshTokenRequest(BaseModel):
    refresh_token: SecretStr = Field(max_length=4000)


class UpdateUserRequest(BaseModel):
    """Omitted fields keep their value."""

    nickname: StorableText | None = Field(default=None, max_length=100)
    avatar: StorableText | None = Field(default=None, max_length=2048)


class TokenResponse(BaseModel):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"


class UserResponse(BaseModel):
    """An account. `username` or `email` is "" if the account does not have it."""

    id: str
    username: str
    email: str
    nickname: str
    avatar: str
    role: Role
    status: Status
    created_at: datetime

    @classmethod
    def of(cls, account: Account) -> UserResponse:
        return cls.model_construct(
            id=str(account.id),
            username=account.username or "",
            email=account.email or "",
            nickname=account.nickname,
            avatar=account.avatar,
            role=account.role,
            status=account.status,
            created_at=account.created_at,
        )


class UserStatusUpdateRequest(BaseModel):
    status: Status


class UserListResponse(BaseModel):
    """A page of accounts. `total` is the number of all accounts."""

    users: list[UserResponse]
    total: int


class LoginResponse(BaseModel):
    user: UserResponse
    tokens: TokenResponse
