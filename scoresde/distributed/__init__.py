"""Several processes that run one command together, started by torchrun; they know no SDE."""

from .group import Group
from .ranks import PeerError, Ranks
from .start import processes

__all__ = ["Group", "PeerError", "Ranks", "processes"]
