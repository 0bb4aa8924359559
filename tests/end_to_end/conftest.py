"""The whole platform on real parts; only the model is scripted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.processes import Platform


@pytest.fixture
def use_model(platform: Platform) -> Callable[[str], None]:
    """Point api and runner, started after this, at a model."""

    def use(url: str) -> None:
        platform.changes.update(llm_base_url=url, llm_model="scripted", llm_api_key="a key nobody may see")

    return use
