"""`verify`: whether samplers converge with the orders claimed for them."""

from .call import verify

__all__ = ["verify"]
