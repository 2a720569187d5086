"""Several processes that run one command together, started by torchrun; they know no SDE."""

from .ranks import PeerError, Ranks
from .start import processes

__all__ = ["PeerError", "Ranks", "processes"]
