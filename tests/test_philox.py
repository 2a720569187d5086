"""Laws of the random numbers: known integers, values by address, and their statistics.

Seeds are fixed, so each statistical test either always passes or never. A test of significance
1e-3 would refuse one good seed in a thousand; correlations may reach 5 standard errors.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from scoresde._philox import (
    PURPOSES,
    device,
    generator,
    host,
    integers,
    normals,
    operations,
    uniforms,
    words,
)

LAST = 2**64 - 1
# Test vectors of the Random123 library: counter, key, integers.
KNOWN = [
    (
        [0] * 4,
        [0] * 2,
        [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B],
    ),
    (
        [LAST] * 4,
        [LAST] * 2,
        [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0],
    ),
    (
        [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89],
        [0x452821E638D01377, 0xBE5466CF34E90C6C],
        [0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6],
    ),
]
EDGES = [0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, LAST]


def names(rows):
    """Rows of (index, draw, address) in the two forms that the functions take."""
    return np.array(rows, dtype=np.uint64).reshape(-1, 3).T


def expected(seed, index, purpose, n, draw=0, address=0):
    """The numbers of NumPy's generator for a name."""
    key = np.array([seed, index], dtype=np.uint64)
    counter = np.array([0, draw, address, PURPOSES[purpose]], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(n)


def bits_of(rows):
    """Words as int64 numbers, one column for each row."""
    return torch.from_numpy(np.array(rows, dtype=np.uint64).view(np.int64)).T.contiguous()


def by_operations(seed, rows, purpose, n):
    """The integers of rows named by (index, draw, address), as the two forms of NumPy take them."""
    if not n:
        return np.empty((rows.shape[1], 0), dtype=np.uint64)
    bits = torch.from_numpy(np.insert(rows, 0, seed, axis=0).view(np.int64))
    return operations.values("integers", bits, purpose, n, torch.int64).numpy().view(np.uint64)


FORMS = [host._row_by_row, host._all_at_once, by_operations]


class TestIntegers:
    @pytest.mark.parametrize(("counter", "key", "integers"), KNOWN)
    def test_are_those_of_philox(self, counter, key, integers):
        words = np.array(counter, dtype=np.uint64)
        even, odd = host._philox(
            words[0::2].reshape(2, 1, 1),
            words[1::2].reshape(2, 1, 1),
            np.array(key, dtype=np.uint64).reshape(2, 1, 1),
        )
        assert np.stack([even, odd], 1).flatten().tolist() == integers
        found = operations.philox(*(operations._halves(bits_of([w])) for w in (counter, key)))
        assert [low | high << 32 for low, high in found[..., 0].T.tolist()] == integers
        # NumPy adds 1 to the counter before the first block.
        before = sum(word << 64 * i for i, word in enumerate(counter)) - 1
        bits = np.random.Philox(key=sum(word << 64 * i for i, word in enumerate(key)))
        bits.advance(before % 2**256)
        assert bits.random_raw(4).tolist() == integers

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 63, 64, 130])
    def test_all_forms_give_those_of_numpy(self, form, n, monkeypatch):
        monkeypatch.setattr(host, "_BLOCKS_AT_ONCE", 8)  # several pieces
        monkeypatch.setattr(operations, "_BLOCKS", 50)
        rows = [(i, draw, a) for i in (0, 1, LAST) for draw in (0, LAST) for a in (0, 2**52, LAST)]
        for seed in (0, 2**32, LAST):
            found = form(seed, names(rows), PURPOSES["path"], n).reshape(len(rows), n)
            for row, (index, draw, address) in zip(found, rows, strict=True):
                assert np.array_equal(row, expected(seed, index, "path", n, draw, address))

    @pytest.mark.parametrize(("rows", "n"), [(1, 3000), (3, 2), (2000, 2), (600, 64), (0, 5)])
    def test_do_not_depend_on_the_form_that_is_chosen(self, rows, n):
        found = integers(7, range(rows), "fresh", n, draw=3)
        wanted = [expected(7, i, "fresh", n, 3) for i in range(rows)]
        assert found.shape == (rows, n)
        assert np.array_equal(found, np.array(wanted, dtype=np.uint64).reshape(rows, n))

    def test_words_broadcast(self):
        found = integers(1, [4, 5], "path", 6, draw=2, address=np.array([[7], [8], [9]]))
        assert found.shape == (3, 2, 6)
        assert np.array_equal(found[2, 0], expected(1, 4, "path", 6, 2, 9))
        assert np.array_equal(found[0, 1], expected(1, 5, "path", 6, 2, 7))
        assert integers(1, 4, "path", 6).shape == (6,)

    def test_purposes_differ(self):
        assert len(set(PURPOSES.values())) == len(PURPOSES)
        firsts = {int(integers(1, 4, purpose, 1)[0]) for purpose in PURPOSES}
        assert len(firsts) == len(PURPOSES)

    def test_no_two_of_a_million_keys_begin_alike(self):
        """The first 64 bits of a block; among random ones two would agree with p = 3e-8."""
        index = np.arange(250_000)
        starts = [integers(s, index, "prior", 1)[:, 0] for s in (0, 1, 2**32, LAST)]
        ordered = np.sort(np.concatenate(starts))
        assert bool((ordered[1:] != ordered[:-1]).all())

    def test_a_generator_of_numpy_uses_them(self):
        bits = generator(3, 9, "shuffle").bit_generator
        assert np.array_equal(bits.random_raw(9), integers(3, 9, "shuffle", 9))


@pytest.mark.parametrize("make", [normals, uniforms])
class TestValues:
    @pytest.mark.parametrize("rows", [2, 900])
    def test_a_longer_draw_begins_with_the_shorter(self, make, rows):
        whole = make(5, range(rows), "times", 300)
        for n in (0, 1, 2, 3, 4, 7, 299):
            assert torch.equal(make(5, range(rows), "times", n), whole[:, :n])

    def test_do_not_depend_on_what_else_is_drawn(self, make, monkeypatch):
        whole = make(5, range(700), "times", 9, draw=np.arange(3)[:, None])
        monkeypatch.setattr(host, "_VALUES", 6)  # several pieces
        for draw in range(3):
            for index in (0, 13, 699):
                alone = make(5, index, "times", 9, draw=draw)
                assert torch.equal(alone, whole[draw, index])

    def test_every_part_of_the_name_matters(self, make):
        base = {"seed": 1, "index": 2, "purpose": "times", "draw": 3}
        others = ({"seed": 2}, {"index": 3}, {"purpose": "uniform"}, {"draw": 2})
        firsts = [make(n=2, **base)] + [make(n=2, **{**base, **other}) for other in others]
        assert len(torch.stack(firsts).unique()) == 10

    def test_global_generators_are_neither_read_nor_seeded(self, make, rng_untouched):
        make(1, range(3), "times", 5)


class TestFormulas:
    def test_uniforms(self):
        r = integers(2, [0, 8], "uniform", 50)
        u = uniforms(2, [0, 8], "uniform", 50)
        assert u.dtype == torch.float64
        assert u.flatten().tolist() == [(int(i) >> 11) / 2**53 for i in r.flatten()]

    def test_normals(self):
        """Box and Muller's with the functions of Python: an error of some units in 2^−52."""
        r = (integers(2, [0, 8], "prior", 50) >> np.uint64(11)).reshape(-1, 2).tolist()
        want = []
        for first, second in r:
            radius = math.sqrt(-2 * math.log((first + 1) / 2**53))
            angle = 2 * math.pi * second / 2**53
            want += [radius * math.cos(angle), radius * math.sin(angle)]
        # The angle is rounded by up to 2^−51, and |z| ≤ 8.6.
        assert normals(2, [0, 8], "prior", 50).flatten().tolist() == pytest.approx(want, abs=2e-14)

    @pytest.mark.parametrize("first", [0, LAST])
    @pytest.mark.parametrize("second", [0, LAST])
    def test_normals_of_the_extreme_integers_are_finite(self, first, second):
        z = np.empty(2)
        host._box_muller(np.array([first, second], dtype=np.uint64), z)
        radius = math.sqrt(2 * 53 * math.log(2)) if first == 0 else 0.0
        assert z.tolist() == pytest.approx([radius, 0.0], abs=1e-14)

    def test_float32_is_rounded_float64(self):
        z = normals(0, range(5), "prior", 7)
        assert torch.equal(normals(0, range(5), "prior", 7, dtype=torch.float32), z.float())

    def test_the_definition_has_not_changed(self):
        """Published results depend on it. A change of these integers must raise `NOISE_VERSION`."""
        words = integers(1, 2, "fresh", 2, draw=3, address=4).tolist()
        assert words == [0x83F4EF3BF9CC5D98, 0x4EBA85A88EBFEC6D]
        assert uniforms(1, 2, "uniform", 2).tolist() == [0.9298869196038739, 0.511800056698348]
        z = [-0.4071698028450943, 1.0768559887407747, -2.5849306464612813]
        # log, cos and sin of other machines may round otherwise
        assert normals(1, 2, "fresh", 3, draw=3, address=4).tolist() == pytest.approx(z, rel=1e-14)


GPU_KINDS = [
    ("integers", torch.int64),
    ("uniforms", torch.float64),
    ("normals", torch.float64),
    ("normals", torch.float32),
]


class TestDevice:
    """Draws of a GPU, made on the CPU by the operations or by Triton's interpreter."""

    @pytest.mark.parametrize("n", [0, 1, 6])
    def test_are_those_of_numpy(self, n, monkeypatch):
        """Uniforms to the bit, normals up to the rounding of log, cos and sin."""
        index, address = np.array(EDGES, dtype=np.uint64), np.array([[3], [LAST]], dtype=np.uint64)
        z = [normals(2**63, index, "path", n, draw=2**32, address=address)]
        u = [uniforms(LAST, index, "times", n, draw=address)]
        monkeypatch.setattr(device, "_MADE_ON", {"cpu"})
        at = words(EDGES, "cpu")
        assert isinstance(at, torch.Tensor)
        for given in (EDGES, index, at):
            z.append(normals(2**63, given, "path", n, draw=2**32, address=address))
            u.append(uniforms(LAST, given, "times", n, draw=address))
        narrow = normals(2**63, at, "path", n, draw=2**32, address=address, dtype=torch.float32)
        assert all(torch.equal(u[0], other) for other in u[1:])
        assert all(torch.allclose(z[0], other, rtol=0, atol=1e-14) for other in z[1:])
        assert narrow.dtype == torch.float32
        assert torch.equal(narrow, z[1].float())
        assert z[0].shape == z[1].shape == (2, len(EDGES), n)

    @pytest.mark.parametrize(("kind", "dtype"), GPU_KINDS)
    def test_the_kernel_gives_those_of_the_operations(self, kind, dtype):
        """To the bit, because Triton's interpreter takes log, cos and sin from NumPy."""
        pytest.importorskip("triton")
        from triton.runtime.interpreter import InterpretedFunction

        from scoresde._philox import kernel

        rows = [
            (s, i, d, a)
            for s in EDGES
            for i, d, a in zip(EDGES[:3], EDGES[2:5], EDGES[4:], strict=True)
        ]
        bits, n = bits_of(rows + [(1, i, 2, 3) for i in range(60)]), 9
        found = torch.full((bits.shape[1], n), -7, dtype=dtype)
        programs = -(-bits.shape[1] * 3 // 64)
        InterpretedFunction(kernel._philox.fn)[(programs,)](
            found, bits, 5, bits.shape[1], n, KIND=kind, BLOCKS=64
        )
        wanted = operations.values(kind, bits, 5, n, dtype)
        assert torch.equal(found, wanted) or torch.allclose(found, wanted, rtol=0, atol=1e-14)
        assert kind == "normals" or torch.equal(found, wanted)

    @pytest.mark.slow
    @pytest.mark.parametrize(("kind", "dtype"), GPU_KINDS[::3])
    def test_the_kernel_compiles_for_a_gpu(self, kind, dtype, tmp_path, monkeypatch):
        """Triton compiles for a GPU that the machine need not have."""
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, compile

        from scoresde._philox import kernel

        short = {torch.int64: "i64", torch.float64: "fp64", torch.float32: "fp32"}[dtype]
        types = {"out": f"*{short}", "names": "*i64", "purpose": "i32", "rows": "i32", "n": "i32"}
        source = ASTSource(
            fn=kernel._philox,
            signature=types | {"KIND": "constexpr", "BLOCKS": "constexpr"},
            constexprs={"KIND": kind, "BLOCKS": kernel._BLOCKS},
        )
        made = compile(source, target=GPUTarget("cuda", 90, 32))  # H100
        assert "mul.hi.u64" in made.asm["ptx"]
        assert made.asm["cubin"]

    def test_a_kernel_that_does_not_work_is_not_used(self, monkeypatch):
        """Whether it raises or gives other numbers; the operations are used, with a warning."""
        cpu = torch.device("cpu")
        device._check(operations.values, cpu)
        for wrong in ("integers", "normals"):

            def other(kind, *args, wrong=wrong):
                return operations.values(kind, *args) + (kind == wrong)

            with pytest.raises(RuntimeError, match=f"its {wrong} are not those"):
                device._check(other, cpu)

        def refuse(*args):
            raise RuntimeError("no C compiler\nand more lines")

        monkeypatch.setattr(device, "_check", refuse)
        with pytest.warns(UserWarning, match=r"cuda:0 are made by operations of torch.*compiler$"):
            made = device.maker.__wrapped__(torch.device("cuda", 0))
        assert made is operations.values


def mean_error(values, mean, variance):
    """|mean of the values − mean| in standard errors."""
    return abs(float(values.mean()) - mean) / math.sqrt(variance / values.numel())


class TestStatistics:
    """Statistics of 1,000 samples with 400 values each, in long rows and in short ones."""

    Z = staticmethod(lambda: normals(11, range(1000), "prior", 400).flatten())

    def test_moments(self):
        z = self.Z()
        # E z^k of k = 1, ..., 4 and their variances E z^2k − (E z^k)²
        for k, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert mean_error(z**k, mean, variance) < 4

    @pytest.mark.parametrize("sigmas", [3.0, 4.0])
    def test_tails(self, sigmas):
        share = math.erfc(sigmas / math.sqrt(2))
        beyond = (self.Z().abs() > sigmas).double()
        assert mean_error(beyond, share, share * (1 - share)) < 4

    @pytest.mark.parametrize(("rows", "n"), [(1, 100_000), (100_000, 1), (30_000, 3)])
    def test_distributions(self, rows, n):
        """Kolmogorov–Smirnov, significance 1e-3."""
        for values, law in (
            (normals(12, range(rows), "prior", n), "norm"),
            (uniforms(12, range(rows), "prior", n), "uniform"),
        ):
            assert stats.kstest(values.flatten().numpy(), law).pvalue > 1e-3

    def test_short_rows_are_normal_each(self):
        """The p-values of 300 rows of 20 numbers are uniform; significance 1e-3."""
        rows = normals(13, range(300), "fresh", 20).numpy()
        p = stats.kstest(rows, "norm", axis=1).pvalue
        assert stats.kstest(p, "uniform").pvalue > 1e-3

    @pytest.mark.parametrize("power", [1, 2])
    def test_streams_are_uncorrelated(self, power):
        """Values and squares of other seeds, samples, purposes, draws and addresses."""
        n = 20_000
        rows = [
            normals(seed, index, purpose, n, draw=draw, address=address)
            for seed, index, purpose, draw, address in (
                (0, 0, "path", 0, 0),
                (1, 0, "path", 0, 0),
                (2**32, 0, "path", 0, 0),
                (0, 1, "path", 0, 0),
                (0, 0, "fresh", 0, 0),
                (0, 0, "path", 1, 0),
                (0, 0, "path", 0, 1),
                (0, 0, "path", 1, 1),
            )
        ]
        correlation = torch.corrcoef(torch.stack(rows) ** power).fill_diagonal_(0)
        assert float(correlation.abs().max()) < 5 / math.sqrt(n)

    @pytest.mark.parametrize("power", [1, 2])
    @pytest.mark.parametrize("lag", [1, 2, 3, 4])
    @pytest.mark.parametrize("place", [0, 1, 2, 3])
    def test_neighbours_are_uncorrelated(self, power, lag, place):
        """Within a Box–Muller pair (lag 1 at even places), within a block and between blocks."""
        z = self.Z() ** power
        pairs = torch.stack([z[place:-lag:4], z[place + lag :: 4][: len(z[place:-lag:4])]])
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 5 / math.sqrt(pairs.shape[1])
