"""Text from outside, such as file names and metadata of checkpoints, made safe to show."""

from __future__ import annotations

__all__ = ["csv_text", "printable", "reason_of"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a spreadsheet formula


def printable(text: str) -> str:
    r"""The text with escapes, such as `\x1b`, in place of all characters that do not print.

    A terminal obeys control characters: they move the cursor, change colours and hide text. Line
    breaks are control characters, too.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def csv_text(text: str) -> str:
    """A text for a cell of a CSV file: printable, with an apostrophe before it if it is a formula.

    Do not pass numbers through this function: a minus sign would be taken for a formula.
    """
    return f"'{printable(text)}" if text.startswith(_FORMULA) else printable(text)


def reason_of(error: BaseException) -> str:
    """The message of an error and its notes on one line; its class if it has no message."""
    message = " ".join(str(error).split()) or type(error).__name__
    return "; ".join([message, *getattr(error, "__notes__", ())])
