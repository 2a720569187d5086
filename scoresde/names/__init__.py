"""From text to objects: configs, checkpoints, samplers, guidance and time grids by name."""

from .autoencoders import load_autoencoder, save_autoencoder
from .config import Config, load_config
from .grids import parse_grid
from .guidance import parse_guidance
from .loading import Checkpoint, load
from .samplers import SAMPLERS, parse_sampler
from .saving import save

__all__ = [
    "SAMPLERS",
    "Checkpoint",
    "Config",
    "load",
    "load_autoencoder",
    "load_config",
    "parse_grid",
    "parse_guidance",
    "parse_sampler",
    "save",
    "save_autoencoder",
]
