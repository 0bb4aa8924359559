"""Manifests of what a session owns, as pure functions."""
