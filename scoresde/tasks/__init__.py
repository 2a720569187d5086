"""The functions behind the commands: from names and paths to results in a folder."""
