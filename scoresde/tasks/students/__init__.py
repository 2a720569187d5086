"""Distillation of a checkpoint, for `scoresde distill`."""
