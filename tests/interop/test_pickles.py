"""The restricted reader of pickles: it reads what torch.load reads, and runs nothing."""

import argparse
import collections
import io
import os
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from hostile_bytes import damaged
from hostile_pickles import bombs, files_of_torch, harmful, long_bombs, saved

from scoresde.checkpoint import CheckpointError
from scoresde.interop.pickles import foreign_names, read_pickle

OLD_NAMES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8"]
OLD_NAMES += ["uint8", "bool", "complex64", "complex128"]
NEW_NAMES = ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"]


def tensors(names):
    """Tensors of all dtypes, views, shared storages, and tensors that are not contiguous."""
    base = torch.arange(24.0).reshape(4, 6)
    found = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names}
    z = torch.tensor([1 + 2j, 3 - 1j])
    found |= {"base": base, "view": base[1:, 2:5], "transposed": base.t(), "column": base[:, 3]}
    found |= {"number": torch.tensor(2.5), "empty": torch.empty(0, 3), "wide": base[:1, :1]}
    found |= {
        "conj": z.conj(),
        "negative": (z + 1).conj().imag,
        "expanded": torch.ones(1).expand(5),
    }
    return collections.OrderedDict(found, parameter=torch.nn.Parameter(base[0]))


def plain():
    return {
        "list": [1, -5, 2**70, 0.5, True, None, "text\u00e9", b"\x00\xff", bytearray(b"ab")],
        "nested": collections.OrderedDict(a=(1, (2, 3, 4, 5), ()), b={3: [[]]}),
        "complex": 1 - 2j,
        "size": torch.Size([2, 3]),
        "array": np.arange(6, dtype=">i2").reshape(2, 3, order="F"),
        "floats": np.arange(6.0).reshape(2, 3),
        "scalar": np.float32(2.5),
    }


def same(read, stored):
    if isinstance(stored, torch.Tensor):
        assert read.dtype == stored.dtype
        assert read.shape == stored.shape
        assert not read.requires_grad
        stored = stored.detach()
        as_bytes = [t.resolve_conj().resolve_neg().contiguous().numpy(force=True).tobytes()
                    if t.dtype not in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
                    else t.contiguous().view(torch.uint8).numpy().tobytes()
                    for t in (read, stored)]  # fmt: skip
        assert as_bytes[0] == as_bytes[1]
    elif isinstance(stored, np.ndarray):
        assert np.array_equal(read.numpy(), stored)
        assert read.dtype == torch.from_numpy(stored.astype(stored.dtype.newbyteorder("="))).dtype
    elif isinstance(stored, dict):
        assert type(read) is dict
        assert list(read) == list(stored)
        for key, value in stored.items():
            same(read[key], value)
    else:
        assert read == stored


@pytest.mark.parametrize("zipped", [True, False])
def test_it_reads_what_torch_reads(tmp_path, zipped):
    path = tmp_path / "state.pth"
    stored = tensors(OLD_NAMES + (NEW_NAMES if zipped else []))
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    read, reference = read_pickle(path), torch.load(path, weights_only=True)
    same(read, reference)
    for key, tensor in reference.items():
        if tensor.numel():
            assert read[key].stride() == tensor.stride(), key
    assert read["view"].data_ptr() == read["base"].data_ptr() + 8 * 4  # one storage, not a copy
    read["base"].zero_()
    assert not read["parameter"].any()


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_all_protocols(tmp_path, protocol):
    path = tmp_path / "plain.pkl"
    stored = plain() | {"tensors": tensors(OLD_NAMES)}
    path.write_bytes(pickle.dumps(stored, protocol))
    read = read_pickle(path)
    same(read, stored)
    assert not foreign_names(read)


def test_other_classes_become_records(tmp_path):
    path = tmp_path / "other.pth"
    shared = argparse.Namespace(lr=2e-4, array=np.ones(2), w=torch.ones(3))
    torch.save([shared, shared, {1, 2}, torch.float32, slice(1, 2)], path)
    first, again, many, dtype, cut = read_pickle(path)
    assert first is again
    assert (first.module, first.name) == ("argparse", "Namespace")
    assert first.state["lr"] == 2e-4
    assert torch.equal(first.state["array"], torch.ones(2, dtype=torch.float64))
    assert torch.equal(first.state["w"], torch.ones(3))
    assert (dtype.name, dtype.args) == ("float32", None)
    assert cut.args == (1, 2, None)
    assert many.args == ([1, 2],)
    found = foreign_names([first, again, many, dtype, cut])
    assert found == {
        "argparse.Namespace": 1, "torch.float32": 1, "builtins.set": 1, "builtins.slice": 1
    }  # fmt: skip


def outcome(path):
    """The content of a file, or the one line of its error."""
    try:
        return read_pickle(path)
    except CheckpointError as error:
        if "\n" in str(error):
            raise AssertionError("an error has several lines") from error
        return error


def test_no_code_runs(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "harm.pkl"
    for body in harmful(f"touch {marker}"):
        path.write_bytes(b"\x80\x04" + body + b".")
        found = outcome(path)
        assert isinstance(found, CheckpointError) or foreign_names(found), "a call is listed"
        assert not marker.exists(), body
    path.write_bytes(b"\x80\x04" + next(harmful(f"touch {marker}")) + b".")
    pickle.loads(path.read_bytes())
    assert marker.exists(), "the control: Python's reader runs it"


def check_refused(path, wanted):
    """One line, in little time, without much memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError, match=wanted) as caught:
        read_pickle(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


@pytest.mark.parametrize(
    "files", [bombs, pytest.param(long_bombs, marks=pytest.mark.slow)], ids=lambda f: f.__name__
)
def test_bombs_are_refused(tmp_path, files):
    path = tmp_path / "bomb.pkl"
    for wanted, body in files():
        path.write_bytes(b"\x80\x04" + body + b".")
        check_refused(path, wanted)


def test_tensors_stay_inside_their_storage_and_members_inside_their_file(tmp_path):
    path = tmp_path / "bomb.pth"
    for wanted, data in files_of_torch():
        path.write_bytes(data)
        check_refused(path, wanted)
    path.write_bytes(saved([2, 2], [1, 2], members={"../a": b"x"}))
    assert read_pickle(path).stride() == (1, 2)
    assert os.listdir(tmp_path) == ["bomb.pth"]


def test_overlapping_members_are_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    data = bytearray(saved([4], [1], members={f"a/{i}": bytes(1000) for i in range(9)}))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        offset, starts = archive.start_dir, archive.getinfo("a/0").header_offset
    for _ in range(11):  # all members of 1000 bytes become the first of them
        if data[offset + 24 : offset + 28] == struct.pack("<I", 1000):
            data[offset + 42 : offset + 46] = struct.pack("<I", starts)
        lengths = struct.unpack("<HHH", data[offset + 28 : offset + 34])
        offset += 46 + sum(lengths)
    del data[starts + 1100 : starts + 5000]
    path.write_bytes(data)
    check_refused(path, "damaged|more bytes than the file")


OTHERS = {
    "empty": b"",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    "a web page": b"<!DOCTYPE html><html>",
    "an array of NumPy": b"\x93NUMPY\x01\x00",
    "a safetensors file": struct.pack("<Q", 30) + b'{"a":1}',
    "compressed by gzip": b"\x1f\x8b\x08",
    "not a PyTorch file": b"hello world",
    "perhaps a pickle of protocol 0": b"import torch\n",
}


def test_other_files_are_named(tmp_path):
    for wanted, data in OTHERS.items():
        path = tmp_path / "other.pth"
        path.write_bytes(data)
        check_refused(path, wanted)
    check_refused(tmp_path, "is not a file")
    check_refused(tmp_path / "none", "no such file")


@pytest.mark.parametrize(
    "count", [8, pytest.param(50, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_damaged_files_give_one_line_or_plain_data(tmp_path, count):
    """`count` damaged files of each of four formats, of which each takes less than a second."""
    stored = {"ema": tensors(OLD_NAMES), "config": argparse.Namespace(n=[1, 2]), "step": 7}
    path, slowest = tmp_path / "damaged", 0.0
    wholes = [pickle.dumps(stored | plain(), protocol) for protocol in (0, 4)]
    for zipped in (True, False):
        torch.save(stored, path, _use_new_zipfile_serialization=zipped)
        wholes.append(path.read_bytes())
    for whole in wholes:
        refused = 0
        for seed in range(count):
            path.write_bytes(damaged(whole, seed))
            start = time.process_time()
            refused += isinstance(outcome(path), CheckpointError)
            slowest = max(slowest, time.process_time() - start)
        assert refused > count / 3
    assert slowest < 1
