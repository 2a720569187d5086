"""`scoresde bench`: measures every sampler on every grid and budget, and writes the report."""
