"""Whether the parts that the platform stands on are there."""
