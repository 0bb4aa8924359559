"""Runs: each turn of a chat is a run, and a runner holds it under a lease while it works on it."""
