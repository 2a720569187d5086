"""HTML from text: whatever is put into a page is escaped, unless it is HTML of our own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from .._text import printable

__all__ = ["Html", "html", "join"]


class Html(str):
    """Text that is HTML already. Only what `html` and `join` have made may become one."""

    __slots__ = ()


def html(template: str, *values: object) -> Html:
    """The template with a value in place of each `{}`.

    Args:
        template: HTML, written by us.
        values: Numbers and text from anywhere, which are escaped, or `Html`, which is not.
    """
    return Html(template.format(*map(_safe, values)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """The parts one after the other, each escaped unless it is `Html`.

    Args:
        parts: Text or `Html`.
        between: HTML, written by us.
    """
    return Html(between.join(map(_safe, parts)))


def _safe(value: object) -> str:
    return value if isinstance(value, Html) else escape(printable(str(value)))
