"""The five file functions and the two file transfers. The kernel checks permissions, for the user of the box."""
