"""An MCP server that logs each call: `python -m support.counting_mcp LOG [--port N]`. Without a port it uses stdio."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp_types import ImageContent, ToolAnnotations


def server(log: Path) -> MCPServer:
    made = MCPServer("counting")

    def note(what: str) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {what}\n")

    @made.tool()
    async def act(seconds: float = 0) -> str:
        """Change something, and take some time for it."""
        note("act")
        await asyncio.sleep(seconds)
        return f"acted in {os.getpid()}"

    @made.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def look(seconds: float = 0) -> str:
        """Change nothing. Slow the first time, if asked to be."""
        note("look")
        if log.read_text().count("look") == 1:
            await asyncio.sleep(seconds)
        return f"looked in {os.getpid()}"

    @made.tool()
    async def names() -> list[str]:
        """The names of this process's variables."""
        return sorted(os.environ)

    @made.tool()
    async def much(count: int) -> str:
        return "x" * count

    @made.tool(structured_output=False)
    async def draw(data: str, count: int = 1) -> list[ImageContent]:
        """Pictures with this base64."""
        return [ImageContent(type="image", data=data, mime_type="image/png")] * count

    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    if options.port is None:
        server(options.log).run("stdio")
    else:
        server(options.log).run("streamable-http", host="127.0.0.1", port=options.port)


if __name__ == "__main__":
    main()
