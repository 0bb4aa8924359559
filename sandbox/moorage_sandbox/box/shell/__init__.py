"""Named shells that live on between calls, each a bash on a pseudo-terminal of its own."""
