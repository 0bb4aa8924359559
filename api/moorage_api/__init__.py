"""The HTTP side of Moorage: accounts, sessions, the event log, and the runner that works through it."""
