"""Operators against dense matrices: adjoints, pseudo-inverses, solutions, and their spectrum."""

import pytest
import torch

from scoresde.inverse import Blur, Downsample, Foreign, Grey, Mask, Projection

SHAPE = (2, 4, 4)
# Rounding: some dozens of operations of numbers of order 1, with condition numbers below 1e4.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}


class Plain:
    """An object of another library, with the two methods that are needed."""

    def __init__(self, operator):
        self.A, self.A_adjoint = operator.A, operator.A_adjoint


def made(name):
    generator = torch.Generator().manual_seed(0)
    if name == "mask":
        return Mask(torch.rand(1, 4, 4, generator=generator) < 0.5, SHAPE)
    if name == "grey":
        return Grey(SHAPE)
    if name == "downsample":
        return Downsample(SHAPE, 2)
    if name == "blur":  # not symmetric; the kernel (1, −1) sums to 0, so that A is singular
        return Blur(torch.tensor([[0.5, -0.5], [0.2, -0.2]]), SHAPE)
    if name == "gaussian blur":
        return Blur.gaussian(SHAPE, 0.6)
    if name == "projection":
        return Projection.random(SHAPE, 5, seed=0)
    if name == "tall matrix":  # 6 measurements of rank 4
        low = torch.randn(6, 4, generator=generator) @ torch.randn(4, 32, generator=generator)
        return Projection(low.double(), SHAPE)
    return Foreign(Plain(Projection.random(SHAPE, 5, seed=0)), SHAPE)


NAMES = ("mask", "grey", "downsample", "blur", "gaussian blur", "projection", "tall matrix")


@pytest.fixture(params=[*NAMES, "foreign"])
def operator(request):
    return made(request.param)


def dense(operator):
    """A as a matrix, column by column."""
    units = torch.eye(32, dtype=torch.float64).reshape(32, *SHAPE)
    return torch.stack([operator.A(unit[None])[0].flatten() for unit in units], 1)


def rows(n, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, dtype=torch.float64, generator=generator)


def test_the_adjoint_and_the_pseudo_inverse_are_those_of_the_matrix(operator):
    matrix, y = dense(operator), rows(3, operator.measured, 1)
    assert matrix.shape[0] == y[0].numel()
    flat = y.flatten(1)
    torch.testing.assert_close(operator.A_adjoint(y).flatten(1), flat @ matrix, **TOLERANCE)
    wanted = flat @ torch.linalg.pinv(matrix, rtol=1e-10).T
    torch.testing.assert_close(operator.A_dagger(y).flatten(1), wanted, **TOLERANCE)


@pytest.mark.parametrize("each", [False, True])
def test_solve_is_that_of_the_matrix(operator, each):
    matrix, y = dense(operator), rows(3, operator.measured, 1)
    a, b = torch.tensor([[0.5, 2.0, 0.0], [0.1, 1.0, 3.0]], dtype=torch.float64)
    found = operator.solve(y, a, b) if each else operator.solve(y, 0.5, 0.1)
    for i in range(3):
        j = i if each else 0
        whole = a[j] * matrix @ matrix.T + b[j] * torch.eye(len(matrix)).double()
        wanted = torch.linalg.solve(whole, y[i].flatten())
        torch.testing.assert_close(found[i].flatten(), wanted, **TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_the_filter_is_that_of_the_singular_value_decomposition(name):
    operator, x = made(name), rows(3, SHAPE, 2)
    _, s, vt = torch.linalg.svd(dense(operator), full_matrices=False)

    def g(s):
        return 1 / (0.3 + s)

    factors = torch.where(s > 1e-10 * s[0], g(s), 0.0)  # 0 on the null space
    wanted = (x.flatten(1) @ vt.T * factors) @ vt
    torch.testing.assert_close(operator.filter(x, g).flatten(1), wanted, **TOLERANCE)


def test_single_precision_stays_single_precision(operator):
    x, y = rows(2, SHAPE, 0).float(), rows(2, operator.measured, 1).float()
    found = [operator.A(x), operator.A_adjoint(y), operator.A_dagger(y), operator.solve(y, 1, 0.1)]
    assert {value.dtype for value in found} == {torch.float32}


def test_projection_rows_are_orthonormal_and_leave_the_global_generator_alone(rng_untouched):
    rows = Projection.random((10,), 4, seed=3).matrix
    torch.testing.assert_close(rows @ rows.T, torch.eye(4).double(), **TOLERANCE)


def test_the_middle_of_a_kernel_is_the_entry_itself():
    x = rows(1, (1, 5, 6), 0)
    for shape in ((1, 1), (3, 3), (2, 3)):
        kernel = torch.zeros(shape)
        kernel[shape[0] // 2, shape[1] // 2] = 2.0
        torch.testing.assert_close(Blur(kernel, (1, 5, 6)).A(x), 2 * x, **TOLERANCE)
    kernel = torch.zeros(3, 3)
    kernel[1, 2] = 1.0  # to the right of the middle
    torch.testing.assert_close(Blur(kernel, (1, 5, 6)).A(x), x.roll(1, 3), **TOLERANCE)


def test_zero_singular_values_of_single_precision_are_found():
    """0.5 − 0.3 − 0.2 is 1e-8 in float32, and 1/1e-8 would be in A⁺."""
    blur = Blur(torch.tensor([[0.5, 0.3], [0.2, 0.0]]), (1, 4, 4))
    low = torch.tensor([[0.1, 0.3], [0.3, 0.9]])
    for operator in (blur, Projection(low)):
        y = rows(1, operator.measured, 1)
        assert float(operator.A_dagger(y).abs().max()) < 1e3 * float(y.abs().max())


class Rounded(torch.nn.Module):
    """As deepinv's physics: it holds float32 tensors, and refuses others."""

    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", torch.ones(1, 4))

    def A(self, x):
        return x @ self.matrix.T

    def A_adjoint(self, y):
        return y @ self.matrix


def test_a_foreign_object_in_single_precision_takes_double():
    operator = Foreign(Rounded(), (4,))
    assert operator.measured == (1,)
    x = operator.A_dagger(torch.tensor([[2.0], [0.0]], dtype=torch.float64))
    torch.testing.assert_close(x, torch.tensor([[0.5] * 4, [0.0] * 4]).double())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mask(torch.zeros(3, dtype=torch.bool)), "keep must be True for at least one"),
        (lambda: Mask(torch.ones(2, 3, dtype=torch.bool), (4,)), r"expand to the shape \(4,\)"),
        (lambda: Grey((3,)), r"shape must have channels and sizes, .* got \(3,\)"),
        (lambda: Downsample((1, 5, 4), 2), r"factor must divide the sizes \(5, 4\), got 2"),
        (lambda: Blur(torch.ones(3), SHAPE), "kernel must have 2 axes"),
        (lambda: Blur(torch.ones(5, 1), SHAPE), "no longer than"),
        (lambda: Blur(torch.zeros(3, 3), SHAPE), "finite and not 0"),
        (lambda: Blur.gaussian(SHAPE, float("inf")), "std must be finite"),
        (lambda: Blur.gaussian(SHAPE, 0), "std must be greater than 0, got 0"),
        (lambda: Projection(torch.ones(3)), r"matrix must have shape \(M, D\)"),
        (lambda: Projection(torch.ones(2, 5), SHAPE), "matrix must have 32 columns"),
        (lambda: Projection.random((4,), 5, 0), "m must be at most 4, got 5"),
        (lambda: Foreign(Plain(Grey(SHAPE)), (3,)), r"does not take samples of \(3,\)"),
        (lambda: made("foreign").filter(rows(1, SHAPE, 0), torch.sqrt), "its singular values"),
    ],
)  # fmt: skip
def test_bad_operators_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_an_object_without_an_adjoint_or_a_mask_of_numbers_is_refused():
    with pytest.raises(TypeError, match="operator must have the method A_adjoint, which Adam"):
        Foreign(type("Adam", (), {"A": abs})(), (2,))
    with pytest.raises(TypeError, match="keep must be a bool tensor"):
        Mask(torch.ones(3))
    with pytest.raises(TypeError, match="matrix must hold real numbers, got torch.complex64"):
        Projection(torch.ones(2, 3, dtype=torch.complex64))
