"""Where samples come from: how each form is read, and what is said where it is something else."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ValueInfoProto
from PIL import Image

from data.test_batching import value
from onnxprune.data import sources
from onnxprune.data.batching import InputSignature, Table, assemble
from onnxprune.data.sources import find_source
from onnxprune.errors import OptionError
from onnxprune.ir.weights import Array

X = value("x", "N", 3)
PICTURE = value("x", "N", 3, 4, 4)


def read(name: object, *inputs: ValueInfoProto, preprocess: str | None = None, rows: int = 4) -> list[tuple[Array, Any]]:
    """The first input and the labels of each batch."""
    inputs = inputs or (X,)
    signature = InputSignature.of(inputs)
    source = find_source(str(name), "--calib", signature, preprocess)
    blocks = (block for table in source.tables() for block in signature.blocks(table, rows))
    return [(b.feeds[inputs[0].name], b.labels) for b in assemble(blocks, rows, signature.size or 1)]


def refused(name: object, words: str, *inputs: ValueInfoProto) -> None:
    with pytest.raises(OptionError, match=rf"^--calib {name}.*{words}"):
        read(name, *inputs)


# Files


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "|u1", "<f2"])
def test_members_are_read_in_blocks(tmp_path: Path, save: Any, order: Any, dtype: str) -> None:
    x = np.arange(7 * 3 * 5).reshape(7, 3, 5).astype(dtype)
    save(tmp_path / "a.npz", x=np.asarray(x, order=order), label=np.arange(7))
    found = read(tmp_path / "a.npz", value("x", "N", 3, 5))
    assert [len(array) for array, _ in found] == [4, 3]
    np.testing.assert_array_equal(np.concatenate([array for array, _ in found]), x.astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found]), range(7))


@pytest.mark.parametrize("save", [np.savez, lambda path, x: np.save(path.with_suffix(".npy"), x)])
def test_feeds_are_contiguous(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "a.npz", x=np.asfortranarray(np.ones((6, 3), np.float32)))
    (path,) = tmp_path.iterdir()
    assert all(array.flags.c_contiguous for array, _ in read(path))


@pytest.mark.parametrize("order", ["C", "F"])
def test_whole_inputs_are_read_whole(tmp_path: Path, order: Any) -> None:
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "a.npz", x=np.ones((5, 3)), kernel=np.asarray(kernel, order=order))
    ((got, _), _) = read(tmp_path / "a.npz", value("kernel", 2, 3), value("x", "N", 3))
    np.testing.assert_array_equal(got, kernel)


def test_what_is_read_can_be_written_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((5, 3), np.float32))
    assert all(array.flags.writeable for array, _ in read(tmp_path / "a.npz"))


def test_arrays_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((5, 3)), notes=np.array([{}], object))
    assert len(read(tmp_path / "a.npz")) == 2


def test_a_mapped_file(tmp_path: Path) -> None:
    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    np.save(tmp_path / "a.npy", x)
    found = read(tmp_path / "a.npy")
    np.testing.assert_array_equal(np.concatenate([array for array, _ in found]), x)
    assert not any(isinstance(array, np.memmap) for array, _ in found)
    refused(tmp_path / "a.npy", "has no array for input 'x'; it has array", X, value("t", "N"))


def damaged(path: Path) -> None:
    """An .npz whose array is cut off, though the archive is whole."""
    data = io.BytesIO()
    np.save(data, np.ones((5, 3)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", data.getvalue()[:-8])


def foreign(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.npz", lambda path: path.write_text("no"), "not an .npz with one array per model input: write it with numpy.savez"),
        ("a.onnx", lambda path: path.write_bytes(b"\0" * 99), "not an .npz"),
        ("a.npz", lambda path: np.savez(path, x=np.array([{}], object)), "array 'x' cannot be read: .*holds Python objects"),
        ("a.npz", damaged, "array 'x' cannot be read: .*ends early"),
        ("a.npz", foreign, "array 'x' cannot be read: not an .npz as numpy.savez writes it"),
        ("a.npz", np.savez, "no array for input 'x'; it has none"),
        ("a.npy", lambda path: path.write_text("no"), "not an .npy"),
        ("a.npy", lambda path: np.save(path, np.array([{}])), "not an .npy .*Python objects"),
        ("a.npy", lambda path: np.save(path, np.ones(3)), r"has shape \[3\], the input takes \[samples, 3\]"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, name: str, write: Any, words: str) -> None:
    write(tmp_path / name)
    refused(tmp_path / name, words)


def test_a_broken_block_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones((500, 3)))
    data = bytearray(path.read_bytes())
    data[5000] ^= 255
    path.write_bytes(data)
    refused(path, "array 'x' cannot be read: .*CRC")


def test_nothing_there(tmp_path: Path) -> None:
    for name in ("absent.npz", "absent", "a b:c", "1:2"):
        refused(tmp_path / name, "no such file or folder; samples are an .npz, an .npy, a folder")


# Folders of arrays


def test_archives_come_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        np.savez(tmp_path / f"input{number}.npz", x=np.full(3, number))
    (tmp_path / "notes.txt").write_text("")
    ((array, _),) = read(tmp_path)
    assert array[:, 0].tolist() == [1, 9, 10]


def test_archives_may_hold_samples_or_batches(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.zeros(3), label=4)
    np.savez(tmp_path / "1.npz", x=np.ones((5, 3)), label=np.arange(5))
    found = read(tmp_path)
    assert [len(array) for array, _ in found] == [4, 2]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found]), [4, 0, 1, 2, 3, 4])


def test_the_archive_that_does_not_fit_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.zeros(3))
    np.savez(tmp_path / "1.npz", x=np.zeros(4))
    with pytest.raises(OptionError, match=rf"^--calib {tmp_path / '1.npz'}: array 'x' has shape \[4\]"):
        read(tmp_path)


# Folders of images


def picture(path: Path, grey: int, size: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), grey, np.uint8)).save(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "JPG", "jpeg"])
def test_images_in_natural_order(tmp_path: Path, suffix: str) -> None:
    for number in (10, 2, 1):
        picture(tmp_path / f"{number}.{suffix}", number)
    (tmp_path / ".hidden.png").write_text("")
    ((array, labels),) = read(tmp_path, PICTURE, preprocess="none")
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[:, 0, 0, 0], [1, 2, 10], atol=2)
    assert labels is None


def test_folders_are_classes_that_take_turns(tmp_path: Path) -> None:
    for name, number in (("ant", 3), ("bee", 1), ("cat/of/mine", 2)):
        for one in range(number):
            picture(tmp_path / name / f"{one}.png", 10 * one)
    (tmp_path / "bat").mkdir()
    (tmp_path / ".cache").mkdir()
    ((array, labels),) = read(tmp_path, PICTURE, preprocess="none", rows=10)
    assert labels.tolist() == [0, 2, 3, 0, 3, 0]  # "bat", empty, has number 1
    assert array[:, 0, 0, 0].tolist() == [0, 0, 0, 10, 10, 20]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_links_in_folders_are_followed_once(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "0.png", 0)
    picture(tmp_path / "samples" / "ant" / "1.png", 20)
    (tmp_path / "samples" / "ant" / "more").symlink_to(tmp_path / "elsewhere")
    for name in ("all", "again", "here"):  # each visit of one would lead to all of them again
        (tmp_path / "samples" / "ant" / name).symlink_to(tmp_path / "samples")
    ((array, _),) = read(tmp_path / "samples", PICTURE, preprocess="none", rows=10)
    assert sorted(array[:, 0, 0, 0].tolist()) == [0, 20]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_links_to_folders_above_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "0.png", 0)
    picture(tmp_path / "samples" / "ant" / "1.png", 20)
    for name, target in (("root", Path("/")), ("up", tmp_path), ("ant/root", Path("/"))):
        (tmp_path / "samples" / name).symlink_to(target)
    ((array, labels),) = read(tmp_path / "samples", PICTURE, preprocess="none", rows=10)
    assert (array[:, 0, 0, 0].tolist(), labels.tolist()) == ([20], [0])
    (tmp_path / "usr" / "bin" / "x11").mkdir(parents=True)
    (tmp_path / "samples" / "usr").symlink_to(tmp_path / "usr")
    monkeypatch.setattr(sources, "_MOST_FOLDERS", 2)
    with pytest.raises(OptionError, match="samples/usr: has more than 2 folders in it: give that of the samples"):
        read(tmp_path / "samples", PICTURE, preprocess="none", rows=10)


def test_images_fit_the_input(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 255, size=9)
    ((array, _),) = read(tmp_path, PICTURE)
    assert (array.shape, array.max()) == ((1, 3, 4, 4), 1)
    ((array, _),) = read(tmp_path, value("x", "N", 4, 4, 1, dtype=2))
    assert (array.shape, str(array.dtype), array.max()) == ((1, 4, 4, 1), "uint8", 255)


def test_images_of_many_sizes(tmp_path: Path) -> None:
    for number, size in enumerate([4, 4, 5]):
        picture(tmp_path / f"{number}.png", 0, size)
    found = read(tmp_path, value("x", "N", 3, "H", "W"))
    assert [array.shape for array, _ in found] == [(2, 3, 4, 4), (1, 3, 5, 5)]


def test_what_was_done_to_images_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 0)
    source = find_source(tmp_path, "--calib", InputSignature.of([PICTURE]), "cifar10")
    text = "resize=4,crop=4,mean=0.4914/0.4822/0.4465,std=0.247/0.2435/0.2616,scale=255"
    assert (source.text, source.count) == (f"--calib {tmp_path} ({text})", 1)


def test_folders_of_something_else(tmp_path: Path) -> None:
    refused(tmp_path, "has neither images .* nor .npz files")
    picture(tmp_path / "a" / "a.png", 0)
    refused(tmp_path, "has images, and the model 2 inputs", X, value("t", "N"))
    np.savez(tmp_path / "0.npz")
    refused(tmp_path, "has folders of images beside .npz files: which are the samples?", PICTURE)
    picture(tmp_path / "b.png", 0)
    refused(tmp_path, "has images beside folders of images beside .npz files", PICTURE)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    refused(tmp_path / "a.png", "", PICTURE)
    with pytest.raises(OptionError, match=rf"^--calib {tmp_path / 'a.png'}: cannot be used as an image: "):
        read(tmp_path, PICTURE)


def test_images_need_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png", 0)
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(tmp_path, r"images need Pillow: pip install 'onnxprune\[images\]'", PICTURE)


# Functions


MODULE = """
import numpy as np

calls = []

def whole():
    calls.append(1)
    return np.arange(18).reshape(6, 3)

def batches():
    yield {"x": np.zeros((4, 3))}
    yield {"x": np.ones((2, 3))}

def pairs():
    for number in range(3):
        yield {"x": np.full(3, number), "other": 0}, number

loader = [[np.zeros((2, 3)), np.array([5, 6])], [np.ones((1, 3)), [7]]]

def reused():
    x = np.empty(3, np.float32)
    for number in range(3):
        x[:] = number
        yield x

class Data:
    @staticmethod
    def make():
        yield (np.ones((2, 3)),)

def failing():
    yield np.zeros(3)
    raise LookupError("no more")

def triple():
    yield 1, 2, 3

def ragged():
    yield [[1, 2], [3]], 0

def nothing():
    return None

number = 3
"""


@pytest.mark.parametrize(
    ("name", "x", "labels"),
    [
        ("whole", [[0, 3, 6, 9], [12, 15]], None),
        ("batches", [[0, 0, 0, 0], [1, 1]], None),
        ("pairs", [[0, 1, 2]], [0, 1, 2]),
        ("loader", [[0, 0, 1]], [5, 6, 7]),
        ("reused", [[0, 1, 2]], None),
        ("Data.make", [[1, 1]], None),
    ],
)
def test_functions(here: Path, name: str, x: list[list[float]], labels: list[int] | None) -> None:
    (here / "pack").mkdir()
    (here / "pack" / "mine.py").write_text(MODULE)
    found = read(f"pack.mine:{name}")
    assert [array[:, 0].tolist() for array, _ in found] == x
    assert labels is None or np.concatenate([mine for _, mine in found]).tolist() == labels


def test_a_data_loader(here: Path) -> None:
    lines = [
        "import torch",
        "from torch.utils.data import DataLoader, TensorDataset",
        "x = torch.arange(15.).reshape(5, 3)",
        "loader = DataLoader(TensorDataset(x, torch.arange(5)), batch_size=2)",
        "plain = DataLoader(TensorDataset(x), batch_size=2)",
    ]
    (here / "mine.py").write_text("\n".join(lines))
    for name, labels in (("loader", [[0, 1, 2, 3], [4]]), ("plain", [None, None])):
        found = read(f"mine:{name}")
        assert [array[:, 0].tolist() for array, _ in found] == [[0, 3, 6, 9], [12]]
        assert [None if mine is None else mine.tolist() for _, mine in found] == labels


def test_a_function_is_called_for_every_pass(here: Path) -> None:
    (here / "mine.py").write_text(MODULE)
    source = find_source("mine:whole", "--calib", InputSignature.of([X]), None)
    passes: list[list[Table]] = [list(source.tables()) for _ in range(2)]
    assert [len(tables) for tables in passes] == [6, 6]
    assert len(sys.modules["mine"].calls) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine:absent", ": mine has no absent"),
        ("absent_module:x", ": there is no module 'absent_module': it must be in the working directory, or installed"),
        ("broken:x", r": broken cannot be imported: ZeroDivisionError: division by zero at .*broken\.py:2"),
        ("mine:number", ": is neither a function nor iterable, but of type int"),
        ("mine:failing", r": raised LookupError: no more at .*mine\.py:\d+"),
        ("mine:nothing", ": raised TypeError: 'NoneType' object is not iterable"),
        ("mine:triple", r", item 0: is of 3 parts: give one array and maybe labels, or \(arrays by name, labels\)"),
        ("mine:ragged", ", item 0: cannot be made an array"),
        ("mine:Data", ": raised TypeError: 'Data' object is not iterable"),
    ],
)
def test_functions_that_fail(here: Path, name: str, words: str) -> None:
    (here / "mine.py").write_text(MODULE)
    (here / "broken.py").write_text("\n1 / 0\n")
    refused(name, words)


def test_a_file_comes_before_a_module(here: Path) -> None:
    np.savez(here / "mine:x", x=np.ones((2, 3)))
    (here / "mine:x.npz").rename(here / "mine:x")
    assert len(read("mine:x")) == 1


@pytest.mark.parametrize("code", ["def f(): sys.exit(0)", "def f():\n    yield 1\n    sys.exit(7)", "sys.exit(0)\nf = None"])
def test_a_function_cannot_end_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    module = f"ends_{abs(hash(code))}"
    (tmp_path / f"{module}.py").write_text(f"import sys\n{code}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    signature = InputSignature.of([value("x", "N")])
    with pytest.raises(OptionError, match=r"SystemExit: \d"):
        list(find_source(f"{module}:f", "--calib", signature, None).tables())


def test_what_a_function_prints_goes_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "print('first')\ndef f():\n    print('second')\n    yield [1.0]\n    print('third')\n"
    (tmp_path / "prints_much.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    list(find_source("prints_much:f", "--calib", InputSignature.of([value("x", "N")]), None).tables())
    assert capsys.readouterr() == ("", "first\nsecond\nthird\n")
