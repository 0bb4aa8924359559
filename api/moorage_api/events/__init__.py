"""The event log: what a session is."""
