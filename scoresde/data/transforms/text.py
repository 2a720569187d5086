"""Transforms from texts of a config, and as plain data of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...plain import ConfigError, construct, nearest, split_kind
from .base import Chain, Transform
from .bounded import Log, Logit
from .linear import Affine, Standardize

__all__ = [
    "NONE",
    "TRANSFORMS",
    "TransformText",
    "chain_from_list",
    "chain_in_words",
    "chain_to_list",
    "parse_transforms",
]

TRANSFORMS: dict[str, type[Transform]] = {
    "standardize": Standardize,
    "affine": Affine,
    "log": Log,
    "logit": Logit,
}

NONE = "none"  # the text for data that are at the model's scale already

_FITTED = {"standardize": ("mean", "std")}  # numbers that the training data give
_DEFAULTS = {"columns": None, "axis": 1}
_SHOWN = 6  # numbers of a transform in words


@dataclass(frozen=True)
class TransformText:
    """A transform as a config says it, before it has seen data.

    Args:
        kind: A name of `TRANSFORMS`.
        values: Its numbers that the text gives.
        columns: Names or numbers of the features; None for all.
    """

    kind: str
    values: Mapping[str, float]
    columns: tuple[str, ...] | None = None

    @property
    def fitted(self) -> bool:
        """Whether its numbers come from the training data."""
        return self.kind in _FITTED

    def make(self, features: int, names: Sequence[str] | None, **more: Any) -> Transform:
        """The transform for data of these features.

        Args:
            features: Number of features of the data.
            names: Their names, or None.
            more: Axis and fitted numbers.

        Raises:
            ValueError: If a column is not one of the data.
        """
        columns = None
        if self.columns is not None:
            columns = tuple(_column(self.kind, text, features, names) for text in self.columns)
        made = TRANSFORMS[self.kind](**self.values, **more, columns=columns)
        made.check_features(features)
        return made


def _column(kind: str, text: str, features: int, names: Sequence[str] | None) -> int:
    """The number of a feature that a text names."""
    if names is not None and text in names:
        return list(names).index(text)
    if text.isascii() and text.isdigit() and int(text) < features:
        return int(text)
    last = features - 1
    known = f"0 … {last}" if names is None else f"{', '.join(names[:12])} or 0 … {last}"
    raise ValueError(f"transform {kind}: the data have no column {text!r}; columns are {known}")


def parse_transforms(value: str | Sequence[str], where: str = "data.transform") -> Any:
    """The transforms of a config: one text, or a list of texts, of which the first acts first.

        "standardize"     "none"     ["log:columns=mass,2", "standardize"]     "logit:low=0:high=9"

    Returns:
        `TransformText`s in a tuple, without entries for "none".

    Raises:
        ConfigError: If a name, key or number is wrong; the message begins with `where`.
    """
    texts = [value] if isinstance(value, str) else list(value)
    if not texts:
        raise ConfigError(f"{where} must name at least one transform, or be {NONE!r}, got []")
    if NONE in texts:
        if len(texts) > 1:
            raise ConfigError(f"{where}: {NONE!r} must stand alone, got {texts}")
        return ()
    return tuple(_parse(text, where) for text in texts)


def _parse(text: str, where: str) -> TransformText:
    kind, *pairs = text.strip().split(":")
    if kind not in TRANSFORMS:
        raise ConfigError(f"{where}: {kind!r} is unknown; {nearest(kind, [*TRANSFORMS, NONE])}")
    allowed = [n for n in TRANSFORMS[kind].__dataclass_fields__ if n not in ("columns", "axis")]
    allowed = ["columns", *(n for n in allowed if n not in _FITTED.get(kind, ()))]
    values: dict[str, float] = {}
    columns = None
    for pair in pairs:
        key, equals, content = pair.partition("=")
        if not equals or key not in allowed or key in values or (key == "columns" and columns):
            known = ", ".join(f"{name}=…" for name in allowed)
            raise ConfigError(f"{where}: {text!r}: each of {known} may come once, got {pair!r}")
        if key == "columns":
            columns = tuple(part.strip() for part in content.split(","))
            if "" in columns:
                raise ConfigError(f"{where}: {text!r}: columns must be names or numbers")
            continue
        try:
            values[key] = float(content)
        except ValueError:
            raise ConfigError(f"{where}: {text!r}: {key} must be a number") from None
    if kind not in _FITTED:  # refuses numbers out of range before any data are read
        construct(TRANSFORMS[kind], values, f"{where}: {text}")
    return TransformText(kind, values, columns)


def chain_in_words(chain: Chain, names: Sequence[str] | None = None) -> str:
    """Transforms in one line: "log of mass, flux; standardize (mean 2.1, 0.3; std 1.2, 0.1)"."""
    kinds = {cls: kind for kind, cls in TRANSFORMS.items()}
    return "; ".join(_in_words(kinds[type(one)], one, names) for one in chain)


def _in_words(kind: str, transform: Transform, names: Sequence[str] | None) -> str:
    def listed(values: Sequence[Any]) -> str:
        shown = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values[:_SHOWN]]
        return ", ".join([*shown, *(["…"] if len(values) > _SHOWN else [])])

    columns = ""
    if transform.columns is not None:
        columns = " of " + listed([i if names is None else names[i] for i in transform.columns])
    found = [(name, getattr(transform, name)) for name in transform.parameters]
    said = [f"{name} {listed(v if isinstance(v, tuple) else (v,))}" for name, v in found]
    return f"{kind}{columns}" + (f" ({'; '.join(said)})" if said else "")


def chain_to_list(chain: Chain) -> list[dict[str, Any]]:
    """Transforms as plain data, ready for JSON: kind and numbers, without defaults."""
    kinds = {cls: kind for kind, cls in TRANSFORMS.items()}
    return [{"kind": kinds[type(one)], **_values(one)} for one in chain]


def _values(transform: Transform) -> dict[str, Any]:
    found = {name: getattr(transform, name) for name in transform.parameters}
    found |= {k: v for k, d in _DEFAULTS.items() if (v := getattr(transform, k)) != d}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}


def chain_from_list(values: Any, where: str = "transform") -> Chain:
    """The inverse of `chain_to_list`.

    Raises:
        ConfigError: If the data are no transforms.
    """
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, Mapping) for v in values):
        raise ConfigError(f"{where} must be a list of tables, got {values!r}")
    made = []
    for i, one in enumerate(values):
        cls, arguments = split_kind(TRANSFORMS, one, f"{where}[{i}]")
        made.append(construct(cls, arguments, f"{where}[{i}]"))
    return tuple(made)
