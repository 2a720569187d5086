"""A checked request of `scoresde likelihood` with its model, its data and its batches."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...data import Dataset, load_dataset
from ...likelihood.vlb.chain import ReverseChain
from ...output.manifest import Origin, Source
from ...output.progress import check_space
from ...output.shared_work import batches_of
from ...score import ScoreModel
from ..compiling import compile_network
from ..given import GivenModel
from ..guided import under_guidance
from ..held_out import check_held_out, choose_rows, load_held_out
from ..request import StoredModel, data_source
from .method import make_method
from .request import ScoreRequest, check_request, resolved

__all__ = ["FLOAT64", "NOTES", "REFINED", "Scoring"]

# Files that keep the budgets of the first few data, and what they are computed with.
REFINED, FLOAT64 = "refined.npz", "float64.npz"
NOTES = {REFINED: "a finer solver", FLOAT64: "float64"}


def _warn_of_clipping(given: GivenModel) -> None:
    """Warn if the sampler of the library that a checkpoint comes from clips x0."""
    about = given.raw.metadata.get("provenance", {}) if isinstance(given, StoredModel) else {}
    plan = about.get("scheduler", {})
    if plan.get("clip_sample") or plan.get("thresholding"):
        warnings.warn(
            f"{plan['_class_name']} clips x0 while it samples; the likelihood is that of the model "
            "without clipping",
            UserWarning,
            stacklevel=3,
        )


@dataclass(frozen=True)
class Scoring:
    """A checked request with its model and its data; no network has been built.

    Attributes:
        request: The request, resolved and checked.
        given: The model.
        data: The data set.
        training: Data to which a Gaussian is fitted; None for a variational bound.
    """

    request: ScoreRequest
    given: GivenModel
    data: Dataset
    training: Dataset | None

    @classmethod
    def of(
        cls,
        request: ScoreRequest,
        out: Path,
        given: GivenModel | None = None,
        in_memory: tuple[Dataset, Dataset] | None = None,
    ) -> Scoring:
        """Check a request and load its data; for arguments and errors see `score_data`."""
        given = given or StoredModel.read(request.checkpoint, request.net, request.sde)
        given = under_guidance(given, request.guidance)
        request = resolved(request, given)
        check_request(request, given)
        _warn_of_clipping(given)
        if in_memory is None:
            data = load_held_out(given, request)
            training = _training(request, given, data)
        else:
            data, training = in_memory[0], in_memory[1] if request.of_flow else None
            data = check_held_out(given, data, request.n)
        # Each draw of a batch keeps its terms: about 8 float64 numbers, which take as much memory
        # as 16 float32 numbers.
        terms = 16 * request.draws
        check_space("--draws", min(request.batch, request.n), terms, out, arrays=1)
        return cls(request, given, data, training)

    @cached_property
    def rows(self) -> np.ndarray:
        """Row numbers of the data to be scored, shape (n,)."""
        return choose_rows(self.data, self.request.n, self.request.seed)

    def origin(self, models: dict[str, Source], **changed: Any) -> Origin:
        """The origin of the results.

        Args:
            models: Kind of each model -> its name and content.
            changed: Settings that the request does not have, or that have another value.
        """
        sources = models | {"data": data_source(self.data)}
        if self.training is not None and self.training.fingerprint != self.data.fingerprint:
            sources["training data"] = data_source(self.training)
        # Results without --compile were made before there was this option, too.
        changed["compiled"] = self.request.compiled or None
        # `force` permits a computation and does not change its result.
        return self.request.origin("likelihood", sources, shown=("force",), **changed)

    @cached_property
    def batches(self) -> dict[str, range]:
        """The places of each batch among the chosen rows, by the name of the batch's file.

        The first few data are computed again with a finer solver, if the method has one, and in
        float64.
        """
        request, few = self.request, range(min(self.request.measured, self.request.n))
        found = batches_of(request.n, request.batch)
        if few and request.of_flow:
            found[REFINED] = few
        if few and request.dtype == "float32" and self.given.doubles:
            found[FLOAT64] = few
        return found

    def chain(self) -> ReverseChain:
        """The chain of the bound vlb-ddpm; the network is built on the CPU and not evaluated."""
        model = self.given.build("cpu", self.request.dtype)
        method, _ = make_method(self.request, self.given.decoded_spec, model, None)
        return method.diffusion(model)

    def built(self) -> ScoreModel:
        """The model on its device, after a check that it can be evaluated."""
        request, y = self.request, self.data.labels
        build = self.given.build_own if request.compiled else self.given.build
        model = build(request.device, request.dtype)
        self.given.check_evaluates(model, y, request.device)
        if request.compiled:
            rows, shape = min(request.batch, request.n), self.given.spec.shape
            compile_network(model, rows, shape, request.torch_dtype, y, request.of_flow)
        return model


def _training(request: ScoreRequest, given: GivenModel, data: Dataset) -> Dataset | None:
    """The data to which the Gaussian is fitted; None for a variational bound, which needs none.

    This is the training split of the checkpoint's data, or the scored data if --data is given.
    """
    if not request.of_flow:
        return None
    if request.data is not None:
        return data
    source = given.data_source.below(request.data_root)
    # labels only for a conditional network, as for the scored data
    labels, spec = data.labels is not None, given.decoded_spec
    return load_dataset(source, labels=labels, classes=spec.class_names).in_units_of(spec)
