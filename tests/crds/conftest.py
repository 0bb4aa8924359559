"""The control plane."""

from support.kube.fixtures import control_plane

__all__ = ["control_plane"]
