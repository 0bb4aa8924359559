"""Tools of others: MCP servers and A2A agents that an admin connects, and what each user wants of them."""
