"""Preferences of users: the tools and skills that each user has switched off."""
