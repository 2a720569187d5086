"""`scoresde verify`: whether samplers converge with the orders claimed for them."""
