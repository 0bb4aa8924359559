"""Login with WeChat: its OAuth 2.0 code flow, and which account belongs to a WeChat user."""
