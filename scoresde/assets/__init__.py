"""Data and checkpoints that ship with the package; README.md states source and licence of each."""
