"""The share of samples as asked, against a count by hand."""

import math

import pytest
import torch

from scoresde.metrics import share_as_asked


def test_it_is_the_share_with_a_standard_error_that_is_never_zero():
    asked = torch.tensor([0, 1, 2, 0, 1])
    found = share_as_asked(torch.tensor([0, 1, 2, 1, 1]), asked)
    assert (found.value, found.n) == (0.8, (5,))
    assert found.std_error == pytest.approx(math.sqrt(5 / 7 * 2 / 7 / 5))
    (moves,) = found.influence
    assert moves.tolist() == pytest.approx([0.2, 0.2, 0.2, -0.8, 0.2])
    assert share_as_asked(asked, asked).value == 1
    assert share_as_asked(asked, asked).std_error > 0
    with pytest.raises(ValueError, match="named and asked must be n ≥ 1 classes each"):
        share_as_asked(asked, asked[:2])
