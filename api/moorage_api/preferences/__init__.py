"""Which tools and skills each user has switched off."""
