"""The tools that every agent has. Each group is a `Toolset`; none knows of another."""

from __future__ import annotations

from moorage_api.agent.ports import Attachments, Gate, Toolset
from moorage_api.agent.toolsets.browser import BrowserToolset
from moorage_api.agent.toolsets.file import FileToolset
from moorage_api.agent.toolsets.search import SearchToolset
from moorage_api.agent.toolsets.shell import ShellToolset


def default_toolsets(
    gate: Gate, attachments: Attachments, *, max_search_results: int, searxng_url: str | None = None
) -> list[Toolset]:
    """Shell, file, browser and search. Talking to the user is part of the executor."""
    return [
        ShellToolset(gate, attachments),
        FileToolset(gate, attachments),
        BrowserToolset(gate, attachments),
        SearchToolset(max_results=max_search_results, searxng_url=searxng_url),
    ]
