"""The sandboxes of this machine: their directories, their three processes, and the registry of all of them."""
