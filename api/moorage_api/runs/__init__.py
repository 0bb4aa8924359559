"""Runs: a chat turn as a leased piece of work."""
