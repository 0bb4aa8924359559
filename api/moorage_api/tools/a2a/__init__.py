"""Remote agents that speak A2A: their configuration, the client, and their functions in a run."""
