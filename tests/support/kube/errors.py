"""The errors of the node tests: what they need is missing, or a node fails."""


class UnavailableError(Exception):
    """Something that a node needs is not available. The tests are skipped with this reason, except in CI."""


class NodeError(Exception):
    """A node failed or did not respond in time."""
