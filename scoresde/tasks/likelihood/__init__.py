"""`scoresde likelihood`: from a request to likelihoods with an error budget, in a folder."""
