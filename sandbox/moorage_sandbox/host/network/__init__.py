"""The network of a sandbox: public addresses only, through slirp4netns."""
