"""The path method: log p(x) from a few steps without derivatives and random nodes."""
