"""`scoresde verify`: whether samplers converge as they promise."""
