"""Result folders, progress and pictures, for all commands that write results."""
