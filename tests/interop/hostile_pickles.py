"""Pickles and PyTorch files that run a command, or need much memory or time, in other readers."""

import io
import struct
import zipfile


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def called(module, name, *arguments):
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(map(text, arguments)) + b"tR"


FUNCTIONS = [  # that run a command or a text, by themselves or on the way to it
    *("os.system", "posix.system", "nt.system", "os.popen", "os.execl", "subprocess.getoutput"),
    *("subprocess.Popen", "pty.spawn", "builtins.eval", "builtins.exec", "__builtin__.eval"),
    *("builtins.compile", "builtins.__import__", "builtins.open", "importlib.import_module"),
    *("runpy.run_path", "runpy.run_module", "ctypes.CDLL", "code.interact", "timeit.timeit"),
    *("cProfile.run", "pdb.run", "pickle.loads", "_pickle.loads", "marshal.loads"),
    *("shutil.rmtree", "socket.create_connection", "webbrowser.open", "pip.main"),
    *("torch.hub.load", "torch.jit.load", "torch.load", "torch.utils.cpp_extension.load_inline"),
    *("torch.fx.graph_module.reduce_graph_module", "numpy.testing.rundocs", "types.FunctionType"),
    *("torch.serialization.load", "numpy.load", "sys.exit", "multiprocessing.Process"),
]


def harmful(command):
    """Pickles, without their first and last opcode, of which many run a command."""
    code = f"__import__('os').system({command!r})"
    for name in FUNCTIONS:
        of_text = name.startswith(("builtins", "__", "timeit", "cProfile", "pdb"))
        given = code if of_text else command
        yield called(*name.rsplit(".", 1), given)
    yield b"(" + text(command) + b"ios\nsystem\n"
    yield b"(cos\nsystem\n" + text(command) + b"o"
    yield b"cos\nsystem\n(" + text(command) + b"t\x81"
    yield b"cos\nsystem\n(" + text(command) + b"t}\x92"
    yield text("os") + text("system") + b"\x93(" + text(command) + b"tR"
    yield text("os") + b"\x94" + text("path.os.system") + b"\x93(" + text(command) + b"tR"
    yield b"\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(command)]) + command.encode() + b"\x85R"
    yield called("builtins", "getattr", "os", "system") + b"(" + text(command) + b"tR"
    yield called("functools", "partial", "x") + called("os", "system", command) + b"b"
    yield b"cfunctools\npartial\n(cos\nsystem\n" + text(command) + b"tR)R"
    yield called("operator", "attrgetter", "system") + called("importlib", "import_module", "os")
    yield b"coperator\nmethodcaller\n(" + text("system") + text(command) + b"tR"
    yield b"(" + called("os", "system", command) * 3 + b"l"
    yield b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(" + text(command) + b"tNtR"
    yield called("torch.storage", "_load_from_bytes", code)
    inner = b"\x80\x02" + called("os", "system", command) + b"."
    yield b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(inner)) + inner + b"tR"
    yield b"ccollections\nOrderedDict\n(" + called("os", "system", command) + b"tR"
    yield b"ccollections\ndefaultdict\n(cos\nsystem\ntR}(" + text(command) + b"K\x01ub"
    array = called("numpy.core.multiarray", "_reconstruct", code)
    yield array + called("os", "system", code) + b"b"
    yield called("torch.hub", "load", command) + called("torch.jit", "load", command) + b"\x86"
    yield b"ctorch._utils\n_rebuild_parameter\n(cos\nsystem\n(" + text(command) + b"tRI00\n}tR"
    yield (
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n(}"
        + text("module_src")
        + text(f"import os; os.system({command!r})")
        + b"stR"
    )
    yield b"\x82\x01(" + text(command) + b"tR"
    yield b"\x84\xff\xff\xff\x7f(" + text(command) + b"tR"
    yield b"P" + f"os.system({command!r})".encode() + b"\n"
    yield text(command) + b"Q"
    yield f"S'{command}'\n".encode() + b"cos\nsystem\nh\x00R"
    yield b"ccopyreg\n_reconstructor\n(cos\nsystem\ncbuiltins\nobject\n" + text(command) + b"tR"


def bombs():
    """(message, pickle): small files that need much memory or time, or have a form of no tree."""
    big = struct.pack("<Q", 1 << 60)
    nest = b"]q\x00" + b"".join(b"(" + b"h%c" % i * 10 + b"lq%c" % (i + 1) for i in range(30))
    shared = b"c_codecs\nencode\n(" + text("x" * 100_000) + b"q\x00" + text("latin1") + b"q\x01tR"
    yield "more than a file of this size", b"(" + shared + b"c_codecs\nencode\n(h\x00h\x01tR" * 5000
    yield "more than 5,000,000 objects", nest
    yield "nested more than 200 deep", b"]" * 1000 + b"a" * 999
    yield "nested more than 200 deep", b"(" * 1000 + b"t" * 1000
    yield "nested more than 200 deep", b"cx\ny\n)R" * 1000 + b"b" * 999
    yield "contains itself", b"]q\x00h\x00a"
    yield "contains itself", b"}q\x00K\x01h\x00s"
    yield "contains itself", b"cx\ny\n)Rq\x00h\x00b"
    yield "a key of a dictionary is a tuple", b"}K\x01K\x02\x86K\x03s"
    yield "a key of a dictionary is an int", b"}\x8a\x0a" + b"\x01" * 10 + b"K\x03s"
    yield "damaged", b"\x8e" + big + b"abc"
    yield "damaged", b"\x8d" + big + b"abc"
    yield "damaged", b"\x96" + big + b"abc"
    yield "damaged", b"\x8b\xff\xff\xff\x7fabc"
    yield "damaged", b"\x8b\xff\xff\xff\xffabc"
    yield "damaged", b"T\xff\xff\xff\xffabc"
    yield "has 80,001 bits", b"\x8b" + struct.pack("<I", 10_001) + b"\x01" * 10_001
    yield "no mark", b"\x95" + big + b"e"
    yield "opcode NEXT_BUFFER", b"\x97"
    yield "opcode READONLY_BUFFER", b"N\x98"
    yield "empty stack", b""
    yield "no mark", b"0" * 3
    yield "damaged", b"L" + b"9" * 100_000 + b"L\n"
    yield "damaged", b"I" + b"9" * 5_000 + b"\n"
    yield "damaged", b"\x00"
    yield "bytes follow its end", b"N.N"
    yield "not stored", b"h\x05"
    yield "not stored", b"j\xff\xff\xff\xff"
    yield "calls a str with a tuple", text("a") + b")R"
    yield "calls .* with a list", b"cx\ny\n]R"
    yield "key without a value", b"}(K\x01u"
    yield "adds elements to an int", b"K\x01K\x02a"
    yield "adds elements to a tuple", b")K\x02a"
    yield "named arguments as an int", b"cx\ny\n)K\x01\x92"
    yield "without a class", b"(o"


def long_bombs():
    """The same with as many operations as are allowed."""
    pair = b"(]q\x00(" + b"](K\x01K\x02e" * 1000 + b"e"
    yield "more than 1,000,000", pair + b"ccollections\nOrderedDict\n(h\x00tR" * 9999
    yield "more than 1,000,000", b"(" + b"}\x94" * 500_001 + b"l"
    yield "nested more than 200 deep", b"]" * 100_000 + b"a" * 99_999


def zipped(files, **settings):
    """Bytes of a zip file with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **settings) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def saved(size, stride, offset=0, count=4, kind="Float", members=()):
    """Bytes of a zip file with one tensor of a storage of `count` numbers."""
    numbers = [f"({''.join(f'I{n}' + chr(10) for n in many)}t" for many in (size, stride)]
    body = (
        f"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\n{kind}Storage\nS'0'\nS'cpu'\n"
        f"I{count}\ntQI{offset}\n{numbers[0]}{numbers[1]}I00\n}}tR."
    )
    return zipped({"a/data.pkl": body.encode(), "a/data/0": bytes(16)} | dict(members))


def files_of_torch():
    """(message, file): tensors outside their storage, and members that torch.save never writes."""
    yield "ends at 4 of a storage of 4", saved([5], [1])
    yield "ends at 6 of a storage of 4", saved([2, 3], [2, 2])
    yield "ends at 4 of a storage of 4", saved([2], [1], offset=3)
    yield "not a few integers", saved([2], [1], offset=-1)
    yield "not a few integers", saved([2], [-1])
    yield "not a few integers", saved([-2], [1])
    yield "not a few integers", saved([2**63], [1])
    yield "not a few integers", saved([1] * 65, [1] * 65)
    yield "1 sizes and 2 strides", saved([1], [1, 1])
    yield "than 64 bits can count", saved([2**40, 2**40, 0], [0, 0, 0])
    yield "more than a file of this size", saved([2**40], [0])
    yield "more than there are", saved([4], [1], count=2**40)
    yield "16 bytes of 20", saved([4], [1], count=5)
    yield "not described as PyTorch", saved([4], [1], count=-4)
    yield "only plain numbers", saved([4], [1], kind="QInt8")
    yield "only plain numbers", saved([4], [1], kind="Complex32")
    yield "no single data.pkl", zipped({"b": b""})
    yield "no single data.pkl", saved([4], [1], members={"b/data.pkl": b"N."})
    yield "a program", saved([4], [1], members={"a/constants.pkl": b"N."})
    yield "a program", saved([4], [1], members={"a/code/__torch__.py": b"x"})
    yield "big-endian", saved([4], [1], members={"a/byteorder": b"big"})
    whole = saved([4], [1])
    yield "damaged", whole[:-1]
    yield "damaged", whole.replace(bytes(16), bytes(15) + b"x")
    two = saved([4], [1], members={"a/data/1": b""})
    yield "of one name", two.replace(b"a/data/1", b"a/data/0")
    yield (
        "a member is compressed",
        zipped({"a/data.pkl": b"N.", "a/data/0": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED),
    )
    yield (
        "a program",
        saved(
            [4],
            [1],
            members={"a/constants.pkl": b"N.", "../../etc/passwd": b"", "/etc/passwd": b""},
        ),
    )
    encrypted = bytearray(whole)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(mark) + at] |= 1
    yield "damaged", bytes(encrypted)
