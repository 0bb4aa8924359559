"""Accounts: registration, login, tokens and the administration of users."""
