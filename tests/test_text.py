"""Text from outside reaches neither a terminal nor a spreadsheet as a command."""

import unicodedata

import pytest

from scoresde._text import csv_text, printable, reason_of


def test_no_control_character_remains():
    every = map(chr, range(0x110000))
    text = printable("".join(c for c in every if unicodedata.category(c) in ("Cc", "Cf", "Cs")))
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith(r"\x00\x01")


def test_what_prints_is_left_alone():
    assert printable("8×8 digits ± σ, 数字 🙂") == "8×8 digits ± σ, 数字 🙂"


def test_the_reason_of_an_error_is_one_line_with_its_notes():
    error = ValueError("no\n such  weight")
    assert reason_of(error) == "no such weight"
    error.add_note("called with x (2, 3)")
    assert reason_of(error) == "no such weight; called with x (2, 3)"
    assert reason_of(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_that_would_be_a_formula_is_text(text):
    assert csv_text(text) == f"'{printable(text)}"


@pytest.mark.parametrize("text", ["a\udcff", "=a\udcff", "\x1b[31m", "a\n=1"])
def test_any_cell_can_be_written_on_one_line(text):
    """A file name need not be UTF-8, and writing the table must not fail after all is computed."""
    assert csv_text(text).encode("utf-8").decode("utf-8").isprintable()


@pytest.mark.parametrize("text", ["", "ddim", "pf-ode", "a=b", "1e-3", "'=1"])
def test_other_cells_stay(text):
    assert csv_text(text) == text
