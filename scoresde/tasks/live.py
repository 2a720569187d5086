"""A score model in memory, as the user of a Python function gives it."""

from __future__ import annotations

import copy
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._condition import ConditionSpec
from .._identity import UnknownIdentityError, identity
from .._reachable import reachable_modules
from ..data import DataSource, DataSpec
from ..names.loading import Checkpoint
from ..output.manifest import Source
from ..score import FunctionScore, NetworkScore, ScoreModel
from ..score.distilled import Distilled
from ..sde import SDE
from .given import GivenModel
from .own_data import spec_of_shape
from .request import StoredModel

__all__ = ["LiveModel", "device_of", "given_model", "known_spec", "name_of"]


@dataclass(frozen=True)
class LiveModel(GivenModel):
    """A score model in memory. It is never changed: other devices and dtypes get a copy.

    Attributes:
        name: Name for messages and reports.
        model: The score model.
        spec: Description of the data.
        data: The training data; None if they are not known.
    """

    name: str
    model: ScoreModel
    spec: DataSpec
    data: DataSource | None = None

    @property
    def sde(self) -> SDE:
        """The forward process."""
        return self.model.sde

    @property
    def snapped(self) -> bool:
        """Whether the model is exact only at the discrete times of its SDE."""
        return self.model.snapped

    @property
    def learned_variance(self) -> bool:
        """Whether the model also says the variance of DDPM's reverse steps."""
        return self.model.learned_variance

    @property
    def distilled(self) -> Distilled | None:
        """How a student of few steps was made; None for a score model."""
        return self.model.distilled

    @property
    def guided(self) -> bool:
        """Whether the score is no gradient of the log-density of the model's ODE."""
        return self.model.guided

    @property
    def evaluations(self) -> int:
        """Evaluations of networks that one evaluation of the model takes at most."""
        return self.model.evaluations

    @property
    def t_least(self) -> float:
        """Least time at which the model may be evaluated."""
        return self.model.t_least

    @property
    def t_most(self) -> float:
        """Largest time at which every quantity of the model can be computed."""
        return self.model.t_most

    @property
    def condition(self) -> ConditionSpec:
        """The conditions that the model takes; none if they are unknown, or bound already."""
        known = self.model.y is None and self.model.condition is not None
        return self.model.condition if known else ConditionSpec()

    @property
    def unconditional(self) -> bool:
        """Whether the model can also be evaluated without a condition."""
        return not self.model.needs_labels

    @property
    def decoded_spec(self) -> DataSpec:
        """Description of the decoded data; `spec` unless the model is one of latents."""
        return self.spec if self.model.decoder is None else self.model.decoder.spec

    @property
    def data_source(self) -> DataSource | None:
        """The training data; None if they are not known."""
        return self.data

    @cached_property
    def source(self) -> Source:
        """Name and content: tensors, settings, SDE, and the code of the user's own classes.

        Warns:
            UserWarning: If the content cannot be determined. The source then differs in every
                call, so that stored results are never used again.
        """
        try:
            return Source(self.name, identity(self.model))
        except UnknownIdentityError as error:
            warnings.warn(
                f"model {self.name}: {error}; so it is not known whether stored results are "
                "those of this model, and none are used again",
                stacklevel=2,
            )
            return Source(self.name, uuid.uuid4().hex * 2)

    @cached_property
    def hidden_dtype(self) -> torch.dtype | None:
        """Dtype of a network that a function of the model uses; None without such a network."""
        own = {id(module) for module in self.model.modules()}
        hidden = (m for m in reachable_modules(self.model) if id(m) not in own)
        found = (t.dtype for module in hidden for t in _tensors(module) if t.is_floating_point())
        return next(found, None)

    @property
    def doubles(self) -> bool:
        """Whether all its floating tensors belong to its registered modules."""
        return self.hidden_dtype in (None, torch.float64)

    def build(self, device: str = "cpu", dtype: str = "float32") -> ScoreModel:
        """The model itself, or a copy on another device or in another dtype.

        Raises:
            ValueError: If it cannot be evaluated in the dtype.
        """
        model, wanted = self.model, torch.device(device)
        if model.data is None and self.spec.transform is not None:
            model = copy.copy(model)
            model.data = self.spec  # so that it takes and gives data in their units
        if any(tensor.device != wanted for tensor in _tensors(model)):
            model = copy.deepcopy(model).to(wanted)
        if dtype == "float64":
            if not self.doubles:
                raise ValueError(
                    f"--dtype: {self.name} uses a network that is not a submodule of the model, "
                    "so that it cannot be converted to float64; wrap it with scoresde.wrap"
                )
            return copy.deepcopy(model).double()
        if dtype == "bfloat16":
            if not isinstance(model, NetworkScore):
                raise ValueError(f"--dtype: bfloat16 needs a NetworkScore, {self.name} is none")
            model = copy.copy(model)
            model.autocast = torch.bfloat16
        return model

    def build_own(self, device: str = "cpu", dtype: str = "float32") -> ScoreModel:
        """A copy of the model."""
        return replace(self, model=copy.deepcopy(self.model)).build(device, dtype)


def given_model(
    model: Any,
    name: str | None = None,
    spec: DataSpec | None = None,
    shape: Sequence[int] | None = None,
) -> GivenModel:
    """A model in any form in which a user may have it.

    Args:
        model: A `ScoreModel`, a loaded checkpoint, or the name or path of a checkpoint.
        name: Name for messages and reports; None for one that is made from the model.
        spec: Description of the data, if the model does not know it.
        shape: Shape of one sample, if neither the model nor `spec` tells it.

    Raises:
        CheckpointError: If a checkpoint cannot be read.
        TypeError: If the model is of another kind.
        ValueError: If the shape of a sample is not known, or contradicts the model.
    """
    name = name or name_of(model)
    if isinstance(model, (str, Path)):
        model = StoredModel.read(model)
    elif isinstance(model, Checkpoint):
        model = LiveModel(name, model.model, model.data, model.config.data)
    elif not isinstance(model, (ScoreModel, GivenModel)):
        hint = "; wrap a network with scoresde.wrap" if isinstance(model, nn.Module) else ""
        raise TypeError(
            f"model must be a ScoreModel, or a checkpoint, its name or path, got "
            f"{type(model).__name__}{hint}"
        )
    own = model.spec if isinstance(model, GivenModel) else getattr(model, "data", None)
    known = own or spec
    if known is None and shape is None:
        raise ValueError(
            f"shape must be given: neither the model {name} nor data tell the shape of a sample"
        )
    if known is not None and shape is not None and tuple(shape) != known.shape:
        raise ValueError(f"shape must be {known.shape}, as of the data of {name}, got {shape}")
    if isinstance(model, GivenModel):
        return model
    return LiveModel(name, model, known or spec_of_shape(shape, name))


def known_spec(model: Any) -> DataSpec | None:
    """The description of the user's data that a model brings with it; None if it has none."""
    if isinstance(model, GivenModel):
        return model.decoded_spec
    score = model.model if isinstance(model, Checkpoint) else model
    if isinstance(score, ScoreModel) and score.decoder is not None:
        return score.decoder.spec
    return getattr(model, "data", None)


def name_of(model: Any) -> str:
    """A name for a model: that of its checkpoint, of its network or function, or of its class."""
    if isinstance(model, (str, Path)):
        path = Path(model)
        return path.stem if path.suffix else path.name
    if isinstance(model, Checkpoint):
        return model.path.stem
    if isinstance(model, NetworkScore):
        # `wrap` makes a function the `forward` of a module.
        model = vars(model.net).get("forward", model.net)
    elif isinstance(model, FunctionScore):
        model = model.function
    return getattr(model, "__name__", type(model).__name__).strip("<>")


def device_of(model: Any) -> str:
    """The device of a model's tensors; "cpu" if it has none, or is not loaded."""
    model = model.model if isinstance(model, (Checkpoint, LiveModel)) else model
    if not isinstance(model, nn.Module):
        return "cpu"
    return next((str(tensor.device) for tensor in _tensors(model)), "cpu")


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
