"""Fixtures of several tests of tasks."""

import pytest


@pytest.fixture
def no_pictures(monkeypatch):
    """Training runs draw nothing, which takes longer than their few steps."""
    for draw in ("draw_losses", "draw_samples"):
        monkeypatch.setattr(f"scoresde.tasks.train.run.{draw}", lambda *_: None)
