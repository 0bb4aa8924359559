"""The files of one skill: where they come from, which are allowed, and what they say."""
