"""Files that people upload and agents save."""
