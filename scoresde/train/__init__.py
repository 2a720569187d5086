"""Training: the settings, the examples that a step sees, and the loop."""

from .examples import VALIDATED, Examples, check_data, split_rows
from .loop import Training, TrainStep, device_of, make_optimizer, network_seed
from .settings import TrainSettings, learning_rate_at

__all__ = [
    "VALIDATED",
    "Examples",
    "TrainSettings",
    "TrainStep",
    "Training",
    "check_data",
    "device_of",
    "learning_rate_at",
    "make_optimizer",
    "network_seed",
    "split_rows",
]
