"""The event log: the stored history of each session, and its delivery to streams."""
