"""The files of one skill: load them from a source, check them, and read the manifest, context and risks."""
