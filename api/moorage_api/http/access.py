"""What the settings of an installation say about callers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AccessSettings:
    allowed_origins: Sequence[str] = ()
    """Browser origins besides our own host; "*" for all."""
    open_config: bool = False
    """Whether anybody may change the configuration, without a token."""
