"""The functions of files and the two file transfers. The kernel checks permissions, for the user of the box."""
