"""Comparisons for `scoresde bench --config`, one small TOML file each."""

__all__: list[str] = []
