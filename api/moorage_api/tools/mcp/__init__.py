"""MCP servers: their configuration, their connections, and their tools in a run."""
