"""What a file is by its first bytes, in words, for messages about files that cannot be read."""

from __future__ import annotations

import re

__all__ = ["HEAD", "kind_of"]

HEAD = 512  # bytes that `kind_of` looks at

_STARTS = {
    b"version https://git-lfs": "a pointer of Git LFS; the file itself was not downloaded",
    b"\x93NUMPY": "an array of NumPy (.npy)",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"GGUF": "a GGUF file, the format of language models",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard; unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"#!": "a script",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_PATTERNS = {
    rb"PK\x03\x04.{26}[^/]*?\.npy": "a .npz file of arrays",
    rb"PK\x03\x04.{26}(metadata\.json|config\.json|model\.weights\.h5)": "a .keras file of Keras",
    rb"\s*(<!doctype html|<html)": "a web page; the download failed",
    rb"\s*<\?xml": "an XML page, often the error of a download",
    rb"\s*[{\[][\s\"{\[\]}]": "JSON text",
    rb".{257}ustar": "a tar archive; unpack it first",
    rb"\x08[\x01-\x20]\x12.(pytorch|onnx|tf2onnx|skl2onnx)": "an ONNX file",
    # 0x80, an empty table, is the first byte of pickles.
    rb"[\x81-\x8f\xde\xdf].{0,4}[\xa1-\xbf\xd9][a-z_]{3}": "a msgpack file, as Flax writes them",
}


def kind_of(head: bytes) -> str | None:
    """What a file is, for a sentence "... is a PNG image"; None if it is not known.

    PyTorch's files, pickles and safetensors files are not named here: their readers do that.

    Args:
        head: The first bytes of the file, `HEAD` of them or the whole file.
    """
    if not head:
        return "empty"
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    for pattern, kind in _PATTERNS.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return kind
    return None if any(head) else "nothing but zeros, like a file whose download was not finished"
