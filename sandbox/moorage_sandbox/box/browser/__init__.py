"""One Chromium on the sandbox's screen. Imported at the first use, so that a box without a browser starts at once."""
