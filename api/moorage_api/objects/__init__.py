"""The object store: files, pictures and long outputs are kept there."""
