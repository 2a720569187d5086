"""Result folders, progress, and pictures: what every command that writes results shares."""
