"""Starts the processes of sandboxes: the fork server, and the host's client of it."""
