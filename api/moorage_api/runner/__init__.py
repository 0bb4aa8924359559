"""The runner process: it claims runs and carries them out."""
