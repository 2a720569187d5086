"""Training: the settings, the examples that a step sees, and the loop."""

from .checks import check_ranks
from .examples import VALIDATED, Examples, check_data
from .loop import Training, device_of, make_optimizer, network_seed
from .order import Order, Split
from .record import TrainStep
from .settings import TrainSettings, learning_rate_at

__all__ = [
    "VALIDATED",
    "Examples",
    "Order",
    "Split",
    "TrainSettings",
    "TrainStep",
    "Training",
    "check_data",
    "check_ranks",
    "device_of",
    "learning_rate_at",
    "make_optimizer",
    "network_seed",
]
