"""Administration of users: admins list, ban and delete accounts with their sessions and files."""
