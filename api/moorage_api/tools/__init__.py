"""Remote tools: MCP servers and A2A agents that an admin connects, and the tools each user has switched off."""
