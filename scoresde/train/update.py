"""The update of weights and buffers, which leaves out a step that is not finite.

Whether a step is finite is known on the device of the network. On an accelerator the host does not
read it: the fused optimizer and the buffers look at the flag on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._deferred import on_accelerator

__all__ = ["Buffers", "update_unless"]


def update_unless(skipped: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of the optimizer, unless `skipped`; weights and its state then keep their values.

    The host waits for an accelerator only if the optimizer is not one of torch's fused ones.

    Args:
        skipped: Bool, shape (), on the device of the parameters.
        optimizer: The optimizer, whose parameters have their gradients.
    """
    if not (on_accelerator(skipped) and getattr(optimizer, "_step_supports_amp_scaling", False)):
        if not bool(skipped):
            optimizer.step()
        return
    optimizer.found_inf = skipped.float()  # as torch.amp.GradScaler tells it
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf


class Buffers:
    """A network's buffers, for instance BatchNorm's running statistics, copied before each step.

    A forward pass changes them even if its loss is not finite. A skipped step puts the copies back.
    """

    def __init__(self, net: nn.Module) -> None:
        # Not `named_buffers`, which leaves out a buffer that is None until the first forward pass.
        self._places = [(module, name) for module in net.modules() for name in module._buffers]

    def keep(self) -> None:
        """Copy the present values."""
        self._kept = [getattr(module, name) for module, name in self._places]
        self._values = [None if buffer is None else buffer.clone() for buffer in self._kept]

    @torch.no_grad()
    def restore_if(self, skipped: Tensor) -> None:
        """Put the values back if `skipped`, a bool tensor of shape ().

        The host waits for an accelerator only if the forward pass has assigned a buffer of another
        shape or dtype, or made one that was None.
        """
        if not on_accelerator(skipped):
            if bool(skipped):
                self._restore(range(len(self._places)))
            return
        others = []
        for i, (place, value) in enumerate(zip(self._places, self._values, strict=True)):
            now = getattr(*place)
            if _alike(now, value):
                now.copy_(torch.where(skipped, value, now))
            elif now is not value:
                others.append(i)
        if others and bool(skipped):
            self._restore(others)

    def _restore(self, which: range | list[int]) -> None:
        """Put values and tensor objects back: a module may have assigned a new tensor."""
        for i in which:
            buffer, value = self._kept[i], self._values[i]
            setattr(*self._places[i], None if buffer is None else buffer.copy_(value))


def _alike(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether both are tensors of one shape, dtype and device."""
    if a is None or b is None:
        return False
    return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
