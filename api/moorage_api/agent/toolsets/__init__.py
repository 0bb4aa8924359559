"""The tools that every agent has. Each group is a `Toolset`; the groups do not import each other."""

from __future__ import annotations

from moorage_api.agent.ports import Attachments, Gate, Toolset
from moorage_api.agent.toolsets.browser import BrowserToolset
from moorage_api.agent.toolsets.file import FileToolset
from moorage_api.agent.toolsets.search import SearchToolset
from moorage_api.agent.toolsets.shell import ShellToolset


def default_toolsets(
    gate: Gate, attachments: Attachments, *, max_search_results: int, searxng_url: str | None = None
) -> list[Toolset]:
    """Shell, file, browser and search. The executor itself carries out the functions that speak to the user."""
    return [
        ShellToolset(gate, attachments),
        FileToolset(gate, attachments),
        BrowserToolset(gate, attachments),
        SearchToolset(max_results=max_search_results, searxng_url=searxng_url),
    ]
