"""Sessions: the twelve endpoints, and the rules of who sees what."""
