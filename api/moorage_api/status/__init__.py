"""The status page: whether the servers that the platform needs work."""
