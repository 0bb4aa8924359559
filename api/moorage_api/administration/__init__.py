"""What admins do with the accounts, sessions and files of others."""
