"""Skills that admins install: sources, checks, stored versions and archives."""
