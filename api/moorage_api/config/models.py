"""Table of platform-wide configuration."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String, func
from sqlalchemy.orm import Mapped, mapped_column

from moorage_api.database import Base


class ConfigRow(Base):
    """One named document: `llm`, `llm_options`, `agent`, `skill_policy` or `model_facts`."""

    __tablename__ = "app_config"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    value: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
