"""`scoresde bench`: every sampler on every grid and budget, measured, and the report."""
