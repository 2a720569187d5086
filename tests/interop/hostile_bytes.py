"""Damaged and malicious bytes of PyTorch, pickle and safetensors files, and what is no file."""

import io
import json
import os
import random
import socket
import struct
import zipfile

import numpy as np
import torch
from hostile_pickles import bombs, files_of_torch, harmful, zipped


def damaged(whole, seed, upto=None):
    """The bytes cut, with flipped bits, or with a part removed, repeated, zeroed or exchanged.

    Args:
        whole: The bytes.
        seed: Of the random numbers.
        upto: All changes but cuts are before this byte, where no weights are; None for the end.
    """
    draw = random.Random(seed)
    at = int((upto or len(whole)) * draw.random() ** 2)
    span, kind = draw.randrange(1, 40), draw.randrange(7)
    if kind == 0:
        return whole[: draw.randrange(len(whole))]
    if kind == 1:
        return whole[:at] + whole[at + span :]
    if kind == 2:
        return whole[:at] + whole[max(0, at - span) : at] + whole[at:]
    if kind == 3:
        return whole[:at] + bytes(span) + whole[at + span :]
    if kind == 4:
        return whole[:at] + draw.randbytes(span) + whole[at + span :]
    if kind == 5:
        return whole + whole[at : at + span]
    changed = bytearray(whole)
    for _ in range(draw.randrange(1, 9)):
        changed[min(len(whole) - 1, at + draw.randrange(span))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def torch_bytes(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def with_pickle(whole, edit):
    """The bytes of a PyTorch file or a pickle, with its pickle edited."""
    if not whole.startswith(b"PK"):
        return edit(whole)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    return zipped({k: edit(v) if k.endswith("/data.pkl") else v for k, v in files.items()})


def attacks(whole, command, some):
    """(label, file) of a PyTorch file or a pickle, in which further opcodes come first.

    Args:
        whole: The file.
        command: What the opcodes run in another reader.
        some: Slice of the list of attacks.
    """
    made = [(f"runs {number}", body + b"0") for number, body in enumerate(harmful(command))]
    made += [(f"bomb: {wanted}", body + b"0") for wanted, body in bombs()]
    made += [(f"only a bomb: {wanted}", body + b".") for wanted, body in bombs()]
    for label, body in made[some]:
        yield label, with_pickle(whole, lambda p, b=body: p[:2] + b + p[2:])


def torch_attacks(whole):
    """(label, file): changes of the zip file of a checkpoint."""
    for wanted, data in files_of_torch():
        yield f"torch: {wanted}", data
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    names = [name for name in files if "/data/" in name]
    yield "compressed", zipped(files, compression=zipfile.ZIP_DEFLATED)
    for label, key in (("first", names[0]), ("last", names[-1])):
        yield f"no {label} storage", zipped({k: v for k, v in files.items() if k != key})
        yield f"short {label} storage", zipped(files | {key: files[key][:-1]})
        yield f"long {label} storage", zipped(files | {key: files[key] + b"x"})
    yield "no pickle", zipped({k: v for k, v in files.items() if not k.endswith("data.pkl")})
    yield "names with ..", zipped({f"../../{k}": v for k, v in files.items()})
    yield (
        "on a GPU",
        with_pickle(
            whole, lambda p: p.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
        ),
    )


def tensors_edited(tensors):
    """(label, tensors): one tensor that is no ordinary one, or missing, or one too many."""
    first, last = next(k for k, v in tensors.items() if v.ndim > 1), list(tensors)[-1]
    w = tensors[first]
    for label, value in {
        **{"NaN": w * torch.nan, "infinite": w * torch.inf, "half": w.half() * 1e9},
        **{"transposed": w.transpose(0, -1)[..., :1], "complex": w.to(torch.complex64)},
        **{"int": w.long(), "bool": w > 0},
        **{"empty": w[:0], "scalar": w.sum(), "larger": torch.cat([w, w]), "flat": w.flatten()},
        **{"sparse": w.to_sparse(), "meta": w.to("meta"), "float8": w.to(torch.float8_e5m2)},
        **{"expanded": torch.ones(1).expand(4096, 4096, 9), "text": "weights", "none": None},
        **{"list": w.flatten().tolist(), "array of text": np.array(["a", "b"])},
        **{"array of objects": np.array([{}, ()], dtype=object), "dictionary": {"weight": w}},
    }.items():
        yield label, tensors | {first: value}
    yield "missing", {k: v for k, v in tensors.items() if k != last}
    yield "all missing but one", {first: w}
    yield "further", tensors | {"further.weight": w}
    yield "lines in a name", tensors | {"a\nb\x1b[31m\u202e": w}
    yield "long name", tensors | {"n" * 100_000: w}
    yield "number as name", tensors | {7: w}
    yield "no name", tensors | {"": w}
    yield "prefixed", {f"model.{k}": v for k, v in tensors.items()}
    yield "tied", tensors | {last: w}


def header(entries, data=b"", length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safetensors_attacks(whole):
    """(label, bytes) of safetensors files that its format forbids, or that need much memory."""
    size = struct.unpack("<Q", whole[:8])[0]
    entries, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    first = next(name for name in entries if name != "__metadata__")
    one = entries[first]
    begin, end = one["data_offsets"]
    text = json.dumps(entries).encode()
    for length in (0, 1, size - 1, size + 1, len(whole), 2**31, 2**53, 2**63, 2**64 - 1):
        yield f"header of {length} bytes", struct.pack("<Q", length) + whole[8:]
    for label, changed in {
        **{"behind": [begin, end + 4], "far": [begin, 2**62], "negative": [-4, 0]},
        **{"reversed": [end, begin], "text": ["0", "4"], "one": [0]},
        **{"large": [2**64, 2**65], "real": [0.5, 1.5], "none": None},
    }.items():
        yield f"offsets {label}", header(entries | {first: one | {"data_offsets": changed}}, data)
    for label, shape in {
        **{"large": [2**40, 2**40], "negative": [-1], "text": ["4"], "other": [1], "empty": []},
        **{"zero": [0, 2**62], "long": [1] * 10_000, "number": 4, "none": None},
    }.items():
        yield f"shape {label}", header(entries | {first: one | {"shape": shape}}, data)
    for kind in ("F33", "I64", "BF16", "F8_E4M3", "C64", "", 3, None, "pickle"):
        yield f"dtype {kind}", header(entries | {first: one | {"dtype": kind}}, data)
    for label, content in {
        **{"list": b"[]", "null": b"null", "empty": b"{}", "number": b"{3", "text": b'{"a": "b"}'},
        **{"deep": b"{" + b'"a":[' * 100_000, "deep tables": b'{"a":' * 100_000},
        **{"not UTF-8": b'{"\xff": 1}', "twice": text[:-1] + b"," + text[1:]},
        **{"spaces": b"{" + b" " * 1_000_000 + b"}", "NaN": b'{"a": NaN}', "nulls": b"{\x00}"},
        **{"large number": b'{"a": 1' + b"0" * 5000 + b"}", "metadata": b'{"__metadata__": 3}'},
        **{"objects": b'{"__metadata__": {"a": [' + b"{}," * 300_000 + b"{}]}}"},
    }.items():
        yield f"header {label}", header(content, data)
    many = {f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}
    yield "many tensors", header(many)
    yield "further bytes", whole + b"x"
    yield "no data", header(entries)
    yield "same data", header(entries | {"further": one}, data)


def places(path):
    """(label, path) of things that are no files, at this path."""
    os.mkfifo(path)
    yield "pipe", path
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        server.bind(path.name)
        os.chdir(here)
        yield "socket", path
    path.unlink()
    for label, target in {
        **{"device": "/dev/zero", "random device": "/dev/random", "broken link": "gone"},
        **{"link to itself": path.name, "link to a folder": "/", "link to text": "/etc/passwd"},
    }.items():
        path.symlink_to(target)
        yield label, path
        path.unlink()
    path.mkdir()
    yield "folder", path
    path.rmdir()
