"""Starts the processes of sandboxes: a small process that forks them, and the host's side of it."""
