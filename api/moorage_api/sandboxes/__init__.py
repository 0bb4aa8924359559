"""Create, find, suspend and delete the sandboxes of sessions, on one machine or in a cluster."""
