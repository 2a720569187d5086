"""Values that a formula gives, for weights and inputs of both libraries; no random numbers."""

import hashlib
import math

import torch


def values(shape, seed):
    """Numbers in [-1, 1] that look irregular, the same on every machine to rounding."""
    count = math.prod(shape)
    index = torch.arange(count, dtype=torch.float64)
    return torch.sin(index**2 * 0.7071 + index * 1.618 + seed).float().reshape(shape)


def weights(shapes, seed):
    """Tensors for {name: shape}: outputs of all layers stay of order one."""
    made = {}
    for number, (name, shape) in enumerate(shapes.items()):
        wave = values(shape, seed + number)
        if len(shape) > 1:
            inputs = shape[0] if name.endswith("W") else math.prod(shape[1:])
            made[name] = wave * math.sqrt(2 / inputs)
        elif "GroupNorm" in name or name.endswith("weight"):
            made[name] = 1 + 0.2 * wave
        else:
            made[name] = 0.2 * wave
    return made


def image(shape, count, scale):
    """A batch of inputs, shape (count, *shape)."""
    return scale * values((count, *shape), 0.5)


def digest_of(shapes):
    """[number of tensors, number of numbers in them, SHA-256 of names and shapes in order]."""
    text = "\n".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return [len(shapes), numbers, hashlib.sha256(text.encode()).hexdigest()]
