"""Settings of an installation that decide which callers are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AccessSettings:
    allowed_origins: Sequence[str] = ()
    """Browser origins that are allowed in addition to our own host; "*" for all."""
    open_config: bool = False
    """Whether every caller may change the configuration, even without a token."""
