import copy
import errno
import os
import pickle
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from scoresde import checkpoint
from scoresde._envelope import canonical
from scoresde._text import printable
from scoresde.checkpoint import (
    CheckpointError,
    RawCheckpoint,
    load_into,
    read_checkpoint,
    save_checkpoint,
)

DTYPES = sorted(checkpoint._DTYPES, key=str)
METADATA = {
    "config": {"sde": {"kind": "vp", "beta_max": 20.0}, "learning_rate": 2e-4},
    "data": {"shape": [1, 8, 8], "levels": None, "low": -1.0},
    "provenance": {"note": 'naïve é 中 \u2028 \n "quoted"', "resumed": False, "seed": 2**63},
}


def tensors_of_every_kind():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 6, generator=generator) * 3
    found = {f"net.{str(dtype).removeprefix('torch.')}": values.to(dtype) for dtype in DTYPES}
    return found | {
        "scalar": torch.tensor(1.5),
        "count": torch.tensor(2**62 + 1),
        "empty": torch.zeros(0, 3),
        "transposed": values.T,
        "strided": values[::2, 1::3],
        "expanded": torch.tensor([2.0]).expand(5),
        "parameter": nn.Parameter(values.clone()),
        "minus zero": torch.tensor([-0.0, 5e-324], dtype=torch.float64),
    }


def small(path, value=0.5):
    save_checkpoint(path, {"w": torch.tensor([1.0, value]), "n": torch.tensor(3)}, {"é": value})
    return path


def rejection(path):
    """Reason for which a file is refused, checked to be one line that begins with the path."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{printable(str(path))}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def only(folder):
    return [entry.name for entry in folder.iterdir()]


def test_everything_comes_back_bit_for_bit(tmp_path):
    path, tensors = tmp_path / "c.safetensors", tensors_of_every_kind()
    save_checkpoint(path, tensors, METADATA)
    loaded = read_checkpoint(path)
    assert loaded.path == path
    assert loaded.metadata == METADATA
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = loaded.tensors[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        as_bytes = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (found, tensor)]
        assert torch.equal(*as_bytes)
    assert only(tmp_path) == ["c.safetensors"]


def test_shared_memory_is_stored_once_per_name(tmp_path):
    values = torch.arange(6.0)
    save_checkpoint(tmp_path / "c", {"a": values, "b": values, "c": values[2:]}, {})
    loaded = read_checkpoint(tmp_path / "c").tensors
    loaded["a"].zero_()
    assert torch.equal(loaded["b"], values)
    assert torch.equal(loaded["c"], values[2:])


def test_no_tensors_and_no_metadata_is_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "c", {}, {})
    assert (read_checkpoint(tmp_path / "c").tensors, read_checkpoint(tmp_path / "c").metadata) == (
        {},
        {},
    )


def test_equal_content_gives_equal_bytes(tmp_path):
    # eight saves: safetensors orders several metadata entries at random
    written = set()
    for i in range(8):
        tensors = dict(sorted(tensors_of_every_kind().items(), reverse=i % 2 == 1))
        save_checkpoint(tmp_path / "c", tensors, dict(sorted(METADATA.items(), reverse=i % 2 == 1)))
        written.add((tmp_path / "c").read_bytes())
    assert len(written) == 1


def test_tuples_become_lists(tmp_path):
    save_checkpoint(tmp_path / "c", {}, {"shape": (1, (2, 3))})
    assert read_checkpoint(tmp_path / "c").metadata == {"shape": [1, [2, 3]]}


def test_saving_copies_and_leaves_its_arguments_alone(tmp_path):
    tensors, metadata = {"w": torch.ones(3, 2).T}, {"a": {"b": (1,)}}
    save_checkpoint(tmp_path / "c", tensors, metadata)
    assert torch.equal(tensors["w"], torch.ones(2, 3))
    assert metadata == {"a": {"b": (1,)}}


def test_digest_tells_apart_names_dtypes_shapes_bytes_and_metadata(tmp_path):
    variants = [
        ({"a": torch.zeros(4)}, {}),
        ({"b": torch.zeros(4)}, {}),
        ({"a": torch.zeros(4, dtype=torch.int32)}, {}),
        ({"a": torch.zeros(2, 2)}, {}),
        ({"a": torch.zeros(2, dtype=torch.float64)}, {}),
        ({"a": -torch.zeros(4)}, {}),
        ({"a": torch.zeros(2), "b": torch.zeros(2)}, {}),
        ({"a": torch.zeros(4)}, {"a": 0}),
        ({"a": torch.zeros(4)}, {"a": 0.0}),
        ({"a": torch.zeros(4)}, {"a": False}),
    ]
    digests = set()
    for tensors, metadata in variants:
        save_checkpoint(tmp_path / "c", tensors, metadata)
        digests.add(read_checkpoint(tmp_path / "c").sha256)
    assert len(digests) == len(variants)


def test_a_flipped_bit_is_rejected(tmp_path):
    """Every third one: all bytes are met, and all places in a byte."""
    good = small(tmp_path / "good").read_bytes()
    path = tmp_path / "flipped.safetensors"
    for position in range(0, 8 * len(good), 3):
        data = bytearray(good)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        assert rejection(path)


def test_every_truncation_and_extension_is_rejected(tmp_path):
    good = small(tmp_path / "good").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert "truncated" in rejection(path) or length == 0
    path.write_bytes(good + b"\0")
    assert "damaged" in rejection(path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**8, 10**4])
def test_a_flipped_header_length_allocates_nothing(tmp_path, length):
    good = small(tmp_path / "good").read_bytes()
    path = tmp_path / "long.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + good[8:])
    assert rejection(path) == (f"damaged or truncated: {len(good)} bytes, header of {length} bytes")


def pack(envelope, tensors=None):
    text = envelope if isinstance(envelope, str) else canonical(envelope)
    return safetensors.torch.save(tensors or {"w": torch.ones(2)}, metadata={"scoresde": text})


def header_only(header):
    return len(header).to_bytes(8, "little") + header


FILES = {
    "empty": (b"", "empty file"),
    "text": (b"[sde]\nkind = 'vp'  # \xc3\xa9\n" * 30, "looks like text"),
    "short text": (b"abc\n", "only 4 bytes, perhaps truncated"),
    "bytes": (bytes(range(256)), "not a safetensors file"),
    "numbers": (header_only(b"1" * 9), "not a safetensors file"),
    "list": (header_only(b"{" + b"}" * 9), "header is not JSON"),
    "not UTF-8": (header_only(b'{"\xff":1}'), "header is not JSON"),
    "nested": (header_only(b'{"a":' * 100_000), "header is not JSON"),
    "no metadata": (safetensors.torch.save({"w": torch.ones(2)}), "without scoresde metadata"),
    "another project's": (
        safetensors.torch.save({"w": torch.ones(2)}, metadata={"format": "pt"}),
        "without scoresde metadata",
    ),
    "metadata not a table": (header_only(b'{"__metadata__":[1]}'), "without scoresde metadata"),
    "broken JSON": (pack("{"), "cannot be parsed"),
    "nested JSON": (pack("[" * 100_000), "cannot be parsed"),
    "not an object": (pack("[1]"), "cannot be parsed"),
    "no digest": (pack({"format": 1, "metadata": {}}), "cannot be parsed"),
    "NaN in JSON": (pack('{"format":1,"metadata":{"a":NaN},"sha256":""}'), "cannot be parsed"),
    "spaces": (pack('{"format":1, "metadata":{},"sha256":""}'), "not canonical"),
    "metadata list": (pack({"format": 1, "metadata": [], "sha256": ""}), "not canonical"),
    "wrong digest": (pack({"format": 1, "metadata": {}, "sha256": "0" * 64}), "checksum"),
    "odd digest": (pack({"format": 1, "metadata": {}, "sha256": 3}), "checksum"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_not_checkpoints_are_named_for_what_they_are(tmp_path, kind):
    content, reason = FILES[kind]
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    assert reason in rejection(path)


def test_paths_that_are_not_files(tmp_path):
    assert rejection(tmp_path / "none") == "no such file"
    assert rejection(tmp_path) == "is a folder, not a checkpoint file"
    os.mkfifo(tmp_path / "pipe")
    assert rejection(tmp_path / "pipe") == "not a regular file"
    (tmp_path / "file").touch()
    assert rejection(tmp_path / "file" / "below") == "cannot be read: Not a directory"
    assert "null" in rejection(f"{tmp_path}/a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
def test_unreadable_file(tmp_path):
    small(tmp_path / "c").chmod(0)
    assert rejection(tmp_path / "c") == "cannot be read: Permission denied"


class Bomb:
    """Unpickling this creates the file named by `marker`."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


def malicious_files(folder, marker):
    bomb = Bomb(marker)
    for name, content in {
        "bare": bomb,
        "nested": {"model": {"w": torch.ones(2)}, "optimizer": {"state": {0: [bomb]}}},
    }.items():
        for zipped in (True, False):
            path = folder / f"{name}-{zipped}.pt"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            yield path
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = folder / f"protocol{protocol}.safetensors"
        path.write_bytes(pickle.dumps({"state": bomb}, protocol))
        yield path
    path = folder / "appended.safetensors"
    path.write_bytes(header_only(b'{"__metadata__":{}}') + pickle.dumps(bomb))
    yield path


def test_malicious_pickles_are_refused_and_not_run(tmp_path):
    marker = tmp_path / "marker"
    files = list(malicious_files(tmp_path, str(marker)))
    assert len(files) == 5 + pickle.HIGHEST_PROTOCOL + 1
    for path in files:
        reason = rejection(path)
        assert reason.startswith("not a scoresde checkpoint")
        if path.suffix == ".pt":
            assert "looks like a PyTorch pickle, which can run code" in reason
        assert not marker.exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_not_called_a_pickle(tmp_path, save):
    save(tmp_path / "samples.npz", x=np.zeros(3), levels=np.zeros(3))
    assert rejection(tmp_path / "samples.npz") == (
        "not a scoresde checkpoint: looks like a .npz file of arrays"
    )


def test_newer_and_older_format_versions_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "c"
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 2)
    small(path)
    monkeypatch.undo()
    assert rejection(path) == (
        "written in format version 2 by a newer scoresde; this one reads 1, please upgrade"
    )
    # a future version may need fields we do not know, and still says what to do
    path.write_bytes(pack({"format": 3, "metadata": {}, "sha256": "", "signature": ""}))
    assert "please upgrade" in rejection(path)
    path.write_bytes(pack({"format": 0, "metadata": {}, "sha256": ""}))
    assert rejection(path) == "format version 0 cannot be read, only 1"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_non_finite_weights_are_never_written(tmp_path, bad, dtype):
    path = small(tmp_path / "c")
    before = path.read_bytes()
    weights = torch.ones(2, 3, dtype=dtype)
    weights[1, 2] = bad
    with pytest.raises(ValueError, match=r"tensor 'net\.w' holds 1 non-finite values"):
        save_checkpoint(path, {"ok": torch.ones(1), "net.w": weights}, {})
    assert path.read_bytes() == before
    assert only(tmp_path) == ["c"]


@pytest.mark.parametrize(
    "name", ["module.w", "net.module.w", "ema.module.0.weight", "_orig_mod.w", "net._orig_mod.w"]
)
def test_wrapped_modules_are_not_stored(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}.*save the bare module"):
        save_checkpoint(tmp_path / "c", {name: torch.ones(1)}, {})
    assert only(tmp_path) == []


@pytest.mark.parametrize(
    ("tensors", "metadata", "kind", "match"),
    [
        ({"w": [1.0]}, {}, TypeError, "must map str to Tensor, got 'w': list"),
        ({1: torch.ones(1)}, {}, TypeError, "must map str to Tensor, got 1"),
        ({"": torch.ones(1)}, {}, ValueError, "must not be empty"),
        ({"w": torch.ones(1, dtype=torch.complex64)}, {}, TypeError, "'w' must be dense"),
        ({"w": torch.ones(2).to_sparse()}, {}, TypeError, "'w' must be dense"),
        ({"w": torch.ones(2, device="meta")}, {}, TypeError, "'w' must be dense.*meta"),
        ({}, {"a": {"b": [0.0, float("nan")]}}, ValueError, r"metadata\.a\.b\[1\] must be finite"),
        ({}, {"a": torch.ones(1)}, TypeError, r"metadata\.a must be plain JSON data, got Tensor"),
        ({}, {"a": Path("x")}, TypeError, r"metadata\.a must be plain JSON data"),
        ({}, {"a": {1: 2}}, TypeError, r"metadata\.a must have string keys, got 1"),
        ({}, [1], TypeError, "metadata must be a dict, got list"),
    ],
)
def test_unfit_content_is_refused_by_name(tmp_path, tensors, metadata, kind, match):
    with pytest.raises(kind, match=match):
        save_checkpoint(tmp_path / "c", tensors, metadata)
    assert only(tmp_path) == []


def test_loading_into_a_module(tmp_path):
    torch_net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    tensors = {f"net.{k}": v + 1 for k, v in torch_net.state_dict().items()}
    save_checkpoint(tmp_path / "c", tensors | {"other": torch.ones(1)}, {})
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    load_into(fresh, read_checkpoint(tmp_path / "c"), prefix="net.")
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, tensors[f"net.{name}"].to(value.dtype))
    assert fresh[0].weight.dtype == torch.float64
    assert fresh[0].weight.requires_grad


def test_differences_are_listed_and_nothing_is_loaded():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    given = {k: v + 1 for k, v in before.items()}
    given["0.weight"] = torch.ones(4, 5)
    given |= {f"extra.{i}": torch.ones(1) for i in range(6)}
    del given["1.bias"]
    with pytest.raises(CheckpointError) as caught:
        load_into(net, RawCheckpoint(Path("c"), given, {}, ""))
    assert str(caught.value) == (
        "c: the tensors do not fit Sequential: 0.weight has shape (4, 5), not (4, 3); "
        "missing 1.bias; unexpected extra.0; unexpected extra.1; unexpected extra.2; and 3 more"
    )
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    norm = nn.BatchNorm1d(2)
    floats = {k: v.float() for k, v in norm.state_dict().items()}
    with pytest.raises(CheckpointError, match="num_batches_tracked has dtype torch.float32"):
        load_into(norm, RawCheckpoint(Path("c"), floats, {}, ""))


def test_errors_survive_pickling_between_processes():
    error = copy.copy(CheckpointError("why", Path("a\nb")))  # copy goes by way of __reduce__
    assert str(error) == "a\\nb: why"
    assert str(CheckpointError("why")) == "why"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_tensors_are_read_on_the_cpu(tmp_path):
    values = torch.randn(5, device="cuda")
    save_checkpoint(tmp_path / "c", {"w": values}, {})
    loaded = read_checkpoint(tmp_path / "c").tensors["w"]
    assert loaded.device.type == "cpu"
    assert torch.equal(loaded, values.cpu())


@pytest.mark.parametrize("name", ["with space", "naïve 中文.safetensors", "a[1]*?.x"])
def test_saving_through_a_link_to_an_unusual_name(tmp_path, name):
    (tmp_path / "runs").mkdir()
    link, target = tmp_path / "latest", tmp_path / "runs" / name
    link.symlink_to(target)
    umask = os.umask(0o077)
    try:
        small(link)
    finally:
        os.umask(umask)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert read_checkpoint(target).tensors["n"] == 3
    assert read_checkpoint(link).path == link


def test_saving_cleans_up_after_a_killed_save(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / f".c.{process.pid}.0123abcd.tmp").touch()
    small(tmp_path / "c")
    assert only(tmp_path) == ["c"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, call, number):
    path = small(tmp_path / "c")

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        small(path, 0.25)
    monkeypatch.undo()
    assert caught.value.errno == number
    assert caught.value.filename == str(path)
    assert "an earlier file is unchanged" in str(caught.value)
    assert read_checkpoint(path).metadata == {"é": 0.5}
    assert only(tmp_path) == ["c"]


def test_a_file_size_limit_leaves_the_old_file(tmp_path):
    # the one way to make a real write fail without a disk of our own
    path = small(tmp_path / "c")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large.*unchanged") as caught:
            save_checkpoint(path, {"w": torch.ones(1 << 20)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert read_checkpoint(path).metadata == {"é": 0.5}
    assert only(tmp_path) == ["c"]


KILLS = 50
# One process imports torch once and forks the savers, which are killed at random instants.
NURSERY = """
    import os, pathlib, random, signal, struct, sys, time
    import torch
    from scoresde._files import clean_folder
    from scoresde.checkpoint import read_checkpoint, save_checkpoint

    def save_for_ever(path, step, report):
        while True:
            step += 1
            save_checkpoint(path, {"w": torch.full((500_000,), float(step))}, {"step": step})
            os.write(report, struct.pack("q", step))

    torch.set_num_threads(1)
    path, kills, step, stale = pathlib.Path(sys.argv[1]), int(sys.argv[2]), 0, 0
    save_checkpoint(path, {"w": torch.zeros(500_000)}, {"step": 0})
    random.seed(0)
    for _ in range(kills):
        reading, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            save_for_ever(path, step, report)
        os.close(report)
        time.sleep(random.uniform(0.0, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        reported = [value for value, in struct.iter_unpack("q", os.read(reading, 1 << 16))]
        os.close(reading)
        last = max(reported, default=step)
        found = read_checkpoint(path)
        step = found.metadata["step"]
        if step not in (last, last + 1) or not torch.all(found.tensors["w"] == step):
            sys.exit(f"saved step {last}, read step {step}")
        stale += len([name for name in os.listdir(path.parent) if name != path.name])
        clean_folder(path.parent, path.name)
        if os.listdir(path.parent) != [path.name]:
            sys.exit(f"left behind: {os.listdir(path.parent)}")
    print(step, stale)
"""


@pytest.mark.slow
def test_fifty_kills_never_lose_more_than_the_save_in_flight(tmp_path):
    path = tmp_path / "c.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NURSERY), str(path), str(KILLS)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    steps, stale = map(int, done.stdout.split())
    # the kills must have met both finished saves and saves in flight for this to prove anything
    assert steps > KILLS / 10
    assert stale > 0
