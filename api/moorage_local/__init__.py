"""The command `moorage`, and the whole platform on one machine: every server is a child of one process."""
