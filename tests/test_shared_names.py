"""Names and patterns that two packages write down: they fail here when they part."""

from __future__ import annotations

from moorage_api.agent.toolsets import browser, file, shell
from moorage_sandbox.protocol import SANDBOX_FUNCTIONS


def test_the_agent_offers_exactly_the_functions_of_the_sandbox() -> None:
    offered = [function.name for toolset in (browser, file, shell) for function in toolset.FUNCTIONS]
    assert sorted(offered) == sorted(SANDBOX_FUNCTIONS)
