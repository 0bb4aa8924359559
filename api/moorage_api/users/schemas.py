"""Bodies of the auth module."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Literal, Self

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, model_validator

from moorage_api.text import StorableSecret, StorableText
from moorage_api.users.account import Account, Role, Status


def check_email(text: str) -> str:
    """Syntax only: whether somebody reads it is not asked of DNS. Domains of documentation and tests are fine."""
    try:
        return validate_email(text, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from error


def empty_to_none(value: object) -> object:
    return None if value == "" else value


def known_email(text: str) -> str:
    """As an account would have it (domains in letters, composed accents); what could be none stays as it is."""
    try:
        return check_email(text)
    except ValueError:
        return text


def composed(text: str) -> str:
    """One form for letters with accents, however a keyboard sends them: NFC."""
    return unicodedata.normalize("NFC", text)


def check_visible(text: str) -> str:
    """A name with what nobody sees in it could pass for another's."""
    if not text.isprintable():
        raise ValueError("must hold no control characters and none that is invisible")
    return text


Username = Annotated[
    Annotated[
        StorableText,
        Field(min_length=3, max_length=50, pattern=r"^\S(.*\S)?$"),
        AfterValidator(composed),
        AfterValidator(check_visible),
    ]
    | None,
    BeforeValidator(empty_to_none),
]
Email = Annotated[
    Annotated[str, Field(max_length=254), AfterValidator(check_email)] | None, BeforeValidator(empty_to_none)
]
LoginName = Annotated[
    Annotated[StorableText, Field(max_length=254), AfterValidator(composed)] | None, BeforeValidator(empty_to_none)
]
LoginEmail = Annotated[
    Annotated[StorableText, Field(max_length=254), AfterValidator(known_email)] | None, BeforeValidator(empty_to_none)
]


class RegisterRequest(BaseModel):
    """At least one of `username` and `email`."""

    username: Username = None
    email: Email = None
    password: StorableSecret = Field(min_length=6, max_length=128)
    nickname: StorableText | None = Field(default=None, max_length=100)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.username is None and self.email is None:
            raise ValueError("username or email is required")
        return self


class LoginRequest(BaseModel):
    """At least one of `username` and `email`. What could never have been registered is simply wrong, not invalid."""

    username: LoginName = None
    email: LoginEmail = None
    password: SecretStr = Field(max_length=1000)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.username is None and self.email is None:
            raise ValueError("username or email is required")
        return self


class RefreshTokenRequest(BaseModel):
    refresh_token: SecretStr = Field(max_length=4000)


class UpdateUserRequest(BaseModel):
    """What is left out stays as it is."""

    nickname: StorableText | None = Field(default=None, max_length=100)
    avatar: StorableText | None = Field(default=None, max_length=2048)


class TokenResponse(BaseModel):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"


class UserResponse(BaseModel):
    """`username` or `email` is "" where the account has none."""

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
    """`total` counts all of them, not the page."""

    users: list[UserResponse]
    total: int


class LoginResponse(BaseModel):
    user: UserResponse
    tokens: TokenResponse
