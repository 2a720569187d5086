"""Text from outside, such as names of files and what a checkpoint says, made safe to show."""

from __future__ import annotations

__all__ = ["csv_text", "printable", "reason_of"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a cell that begins with one


def printable(text: str) -> str:
    r"""The text with every character that does not print written as an escape, such as `\x1b`.

    A terminal obeys control characters: they move the cursor, change colours and hide text. Line
    breaks are control characters, too.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def csv_text(text: str) -> str:
    """A text for a cell of a CSV file: printable, after an apostrophe if it would be a formula.

    Numbers must not be passed through it: the sign of a negative one would be taken for a formula.
    """
    return f"'{printable(text)}" if text.startswith(_FORMULA) else printable(text)


def reason_of(error: BaseException) -> str:
    """The message of an error on one line; the name of its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
