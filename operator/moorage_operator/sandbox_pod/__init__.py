"""The pod of a session: its settings, its manifest and what we observe of it. Everything here is pure."""
