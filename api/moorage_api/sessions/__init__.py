"""Sessions: their HTTP endpoints and streams, and the rules of who may see which session."""
