"""Checkpoints and configs that come with the package, found by name. It imports no torch."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from .plain import nearest

__all__ = [
    "TEMPLATES",
    "comparison_template",
    "config_template",
    "is_model_folder",
    "locate",
    "shipped",
]

TEMPLATES = ("images", "vectors", "series", "volumes", "sets")

_NO_NAMES = ("features_", "template_")  # files with these prefixes are not found by name

# For each kind: the package that holds the files, their suffix, and a noun for messages.
_KINDS = {
    "checkpoints": ("scoresde.assets", ".safetensors", "checkpoint"),
    "configs": ("scoresde_cli.configs", ".toml", "config"),
    "comparisons": ("scoresde_cli.configs.bench", ".toml", "comparison"),
}


def shipped(what: str) -> list[str]:
    """Names of the checkpoints or configs that come with the package.

    Args:
        what: "checkpoints", "configs" of `scoresde train`, or "comparisons" of `scoresde bench`.
    """
    package, suffix, _ = _KINDS[what]
    files = (file.name for file in resources.files(package).iterdir())
    names = sorted(name.removesuffix(suffix) for name in files if name.endswith(suffix))
    return [name for name in names if not name.startswith(_NO_NAMES)]


def config_template(what: str) -> str:
    """A commented TOML config that lists every key, with its default if it has one.

    Args:
        what: One of `TEMPLATES`: the kind of data.
    """
    file = resources.files("scoresde_cli.configs") / f"template_{what}.toml"
    return file.read_text(encoding="utf-8")


def comparison_template() -> str:
    """A commented TOML file for `scoresde bench` that lists every key with its default."""
    file = resources.files("scoresde_cli.configs.bench") / "template_bench.toml"
    return file.read_text(encoding="utf-8")


def locate(what: str, name_or_path: str | Path) -> Path:
    """The file of a checkpoint or a config, from its path or the name of a shipped file.

    Args:
        what: As for `shipped`.
        name_or_path: A name of `shipped(what)`, or a path. A file wins over a shipped name, and a
            shipped name over a folder.

    Returns:
        The path; whether it exists is not checked if it has a suffix or a folder.

    Raises:
        ValueError: If it looks like a name but is unknown; the message gives the nearest name.
    """
    path, name = Path(name_or_path), str(name_or_path)
    package, suffix, noun = _KINDS[what]
    if not path.is_file() and name in shipped(what):
        return Path(str(resources.files(package) / f"{name}{suffix}"))
    if not path.exists() and path.suffix == "" and len(path.parts) <= 1:
        known = nearest(name, shipped(what))
        raise ValueError(f"{name}: neither a file nor a shipped {noun}; {known}")
    return path


def is_model_folder(path: Path) -> bool:
    """Whether a folder has the files of a model of the library diffusers.

    It looks for names only: those of a pipeline, or of the config of a network.
    """
    names = ("model_index.json", "config.json", "unet/config.json", "unet_ema/config.json")
    return path.is_dir() and any((path / name).is_file() for name in names)
