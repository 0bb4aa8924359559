"""Login with WeChat: its OAuth 2.0 code flow, and whose account a WeChat user is."""
