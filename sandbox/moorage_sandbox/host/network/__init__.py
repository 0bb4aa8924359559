"""The network of a box: slirp4netns as its way out, and routes that allow public addresses only."""
