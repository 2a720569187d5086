"""The sum of the gradients of several processes, of which each has computed rows of one batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..distributed import Group, Ranks

__all__ = ["Total"]


class Total:
    """Adds up tensors over all processes, in place; all processes get the same bits.

    Args:
        ranks: The processes.
        device: Where the tensors are.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self._ranks, self._device = ranks, device
        self._group: Group | None = None

    def __call__(self, tensor: Tensor) -> None:
        """Replace a contiguous tensor by its sum over all processes.

        Raises:
            PeerError: If another process has failed.
        """
        if self._group is None:  # made at the first step, because it waits for all processes
            self._group = Group(self._ranks, self._device)
        self._group.add_up(tensor)

    def gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their sums, with one message for all of one dtype.

        A parameter without a gradient in this process counts as one with a gradient of 0, because
        another process may have one.

        Raises:
            PeerError: If another process has failed.
        """
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                by_dtype.setdefault(parameter.dtype, []).append(parameter.grad)
        for gradients in by_dtype.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            self(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
