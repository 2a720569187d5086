"""The configs that come with the package, one small TOML file per run."""

__all__: list[str] = []
