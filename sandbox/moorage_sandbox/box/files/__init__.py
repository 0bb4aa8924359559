"""Files as the box's own user sees them: the five file functions and the two transfers."""
