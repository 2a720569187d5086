"""What the commands call: from names and paths to results in a folder."""
