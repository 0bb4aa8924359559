"""What keeps the node tests from running, and what goes wrong while they run."""


class UnavailableError(Exception):
    """Something a node needs cannot be had here. The tests are skipped with this as the reason, except in CI."""


class NodeError(Exception):
    """A node did not do what it must, in time."""
