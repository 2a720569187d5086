"""A model as the user gave it: what commands and functions need to know before they build it.

`StoredModel` in `request` is a checkpoint on disk. `LiveModel` in `live` is an object in memory.
All code after the first lines of a command knows only `GivenModel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, take_rows
from .._tensor import NonFiniteError
from .._text import reason_of
from ..data import Dataset, DataSource, DataSpec
from ..evaluation import count_nfe, evaluating, own_context
from ..ivp import FLOAT32_TOLERANCE
from ..output.manifest import Source
from ..score import ScoreModel
from ..score.distilled import Distilled
from ..sde import SDE

__all__ = ["GivenModel"]


class GivenModel(ABC):
    """A model that was given by name, by path or as an object.

    Attributes:
        name: Name for messages and reports.
        spec: Description of the data at which the model is evaluated.
        kind: Kind of the source of the results, "checkpoint" or "model".
    """

    name: str
    spec: DataSpec
    kind: str = "model"
    shape: None = None  # as of score models: the shape of a sample is that of the data

    @property
    @abstractmethod
    def sde(self) -> SDE:
        """The forward process."""

    @property
    @abstractmethod
    def snapped(self) -> bool:
        """Whether the network is exact only at the discrete times of its SDE."""

    @property
    @abstractmethod
    def learned_variance(self) -> bool:
        """Whether the network also says the variance of DDPM's reverse steps."""

    @property
    def distilled(self) -> Distilled | None:
        """How a student of few steps was made; None for a score model."""
        return None

    @property
    def plain(self) -> GivenModel:
        """The model without guidance."""
        return self

    @property
    def evaluations(self) -> int:
        """Evaluations of networks that one evaluation of the model takes at most."""
        return 1

    @property
    def guided(self) -> bool:
        """Whether the score is no gradient of the log-density of the model's ODE."""
        return False

    @property
    @abstractmethod
    def t_least(self) -> float:
        """Least time at which the network may be evaluated."""

    @property
    @abstractmethod
    def t_most(self) -> float:
        """Largest time at which every quantity can be computed, 1 unless α(1) = 0."""

    @property
    @abstractmethod
    def condition(self) -> ConditionSpec:
        """The conditions that the data give to the model; without kinds if there are none."""

    @property
    @abstractmethod
    def unconditional(self) -> bool:
        """Whether the model can also be evaluated without a condition."""

    @property
    def classes(self) -> int | None:
        """Number of classes of a model that takes class labels from the data, otherwise None."""
        return self.condition.classes

    @property
    @abstractmethod
    def data_source(self) -> DataSource | None:
        """The training data; None if they are not known."""

    @property
    def held_out_share(self) -> float:
        """Share of the training data that the model was not trained on."""
        return 0.0

    def held_out_rows(self, data: Dataset) -> Tensor:
        """The rows of the training data that the model was not trained on, ascending.

        Args:
            data: The training data, with the conditions that the network takes.

        Raises:
            ValueError: If none were held out, or these are not the data of the training.
        """
        raise ValueError(f"--split: held-out is of a checkpoint, and {self.name} is none")

    @property
    @abstractmethod
    def source(self) -> Source:
        """Name and content, for the origin of results."""

    @abstractmethod
    def build(self, device: str = "cpu", dtype: str = "float32") -> ScoreModel:
        """The score model on a device, ready to evaluate.

        Args:
            device: Device of the network.
            dtype: "float32" leaves the network as it is, "float64" converts it, and "bfloat16"
                evaluates it under autocast.
        """

    def build_own(self, device: str = "cpu", dtype: str = "float32") -> ScoreModel:
        """As `build`, but a model that no one else uses, so that it may be changed."""
        return self.build(device, dtype)

    def check_evaluates(self, model: ScoreModel, y: Condition | None, device: str) -> None:
        """Raise unless the built model can be evaluated on data of its shape: two samples at t = 1.

        Args:
            model: The model as `build` made it.
            y: The condition of all samples, or None.
            device: Device of the model.

        Raises:
            TypeError: If the condition has a wrong dtype.
            ValueError: If the condition is not one that the model takes.
            RuntimeError: If it cannot; the message says what the network was given, and its error.
        """
        x = torch.zeros(2, *self.spec.shape, device=device)
        y = None if y is None else take_rows(y, slice(2))
        bound = model.labelled(y, 2, device)
        try:
            with own_context(), evaluating(bound), count_nfe(bound):
                bound.eps(x, bound.t_most)
        except NonFiniteError:
            return  # a network may dislike x = 0; samples are checked
        except Exception as error:
            takes = model.condition is None or bool(model.condition)
            without = " without a condition" if takes and model.y is None and y is None else ""
            hint = "; give y, or to wrap the number of classes" if without else ""
            raise RuntimeError(
                f"{self.kind} {self.name} cannot be evaluated on x of shape {tuple(x.shape)}"
                f"{without}{hint}: {reason_of(error)}"
            ) from error

    @property
    def decoded_spec(self) -> DataSpec:
        """Description of the data that the user sees; for a model of latents `spec` is another."""
        return self.spec

    @property
    def of_latents(self) -> bool:
        """Whether samples are latents, which are decoded to data."""
        return self.decoded_spec is not self.spec

    @property
    def autoencoder_sha256(self) -> str | None:
        """Digest of the file of the autoencoder; None without one, or if it is not known."""
        return None

    def refuse_latents(self, what: str, option: str = "--checkpoint") -> None:
        """Raise ValueError for a model of latents, before anything is computed.

        Args:
            what: What is for models of the data themselves only, for the message.
            option: The option that gave the model.
        """
        if self.of_latents:
            raise ValueError(
                f"{option}: {self.name} is a model of latents of shape {self.spec.shape}, and "
                f"{what} is for models of the data themselves"
            )

    @property
    def data(self) -> DataSpec:
        """`spec`, under the name that score models use."""
        return self.spec

    @property
    def doubles(self) -> bool:
        """Whether the model can be built in float64."""
        return True

    def last_time(self, asked: float | None, default: float) -> float:
        """The time nearest to the data: last time of grids, and start time of data.

        Args:
            asked: The time that the user gave, or None.
            default: The time if the user gave none. The time of the network's first discrete label
                replaces it if that is later.
        """
        return max(default, self.t_least) if asked is None else asked

    def check_first_time(self, t_min: float | None, option: str = "--t-min") -> None:
        """Raise if the network was not trained at times as small as t_min.

        Args:
            t_min: The least time at which the network will be evaluated; None if it was not given.
            option: The option that gave it.

        Raises:
            ValueError: If t_min is below the time of the network's first discrete label.
        """
        if t_min is not None and t_min < self.t_least:
            raise ValueError(
                f"{option}: {t_min:g} is below {self.t_least:g}, the time of the first "
                "discrete label that the checkpoint's network was trained on"
            )

    def check_score(self, command: str) -> None:
        """Raise if the model has no score, which a command needs.

        Args:
            command: Name of the command or the option.

        Raises:
            ValueError: If the model is a student of few steps.
        """
        if self.distilled is not None:
            raise ValueError(
                f"--checkpoint: {self.name} is {self.distilled.in_words}, whose x0 is the end of a "
                f"long step, so that it has no score for {command}; take its teacher"
            )

    def check_flow(self, rtol: float, atol: float, dtype: str) -> None:
        """Raise unless the probability-flow ODE can be solved with these tolerances.

        Args:
            rtol: Relative tolerance.
            atol: Absolute tolerance.
            dtype: "float32" or "float64" for data and network.

        Raises:
            ValueError: If the network's labels are rounded, or a tolerance is below the rounding
                of float32; the message names the option.
        """
        if self.snapped:
            raise ValueError(
                f"--checkpoint: {self.name} has rounded labels, which are wrong between its "
                "discrete times; the probability-flow ODE asks at all times, with label = 'index'"
            )
        for name, value in (("rtol", rtol), ("atol", atol)):
            if dtype != "float64" and value < FLOAT32_TOLERANCE:
                raise ValueError(
                    f"--{name}: {value:g} is too small for float32, which needs at least "
                    f"{FLOAT32_TOLERANCE:g}; use --dtype float64"
                )
