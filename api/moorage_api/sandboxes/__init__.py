"""How api and runner reach a session's sandbox."""
