"""Studies of a trained model: sweeps over samplers, figures, the report."""

__all__: list[str] = []
