"""`scoresde train`: a training run in its folder, from the config to the last checkpoint."""
