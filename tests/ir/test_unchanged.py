"""Files that change while a command runs are noticed: nothing is written, and no plan names a file that was not read."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxprune
from onnxprune.errors import ChangedError
from onnxprune.ir import files
from onnxprune.ir.model import Model
from onnxprune.ir.outputs import replace_file
from onnxprune.ir.temporary import temporary_folder
from onnxprune.ir.unchanged import check_unchanged, digest_of, note, replaced, watched

NET = """<ir_version: 9, opset_import: ["": 18]> net (float[n, 32] x) => (float[n, 32] y) {
    h = MatMul (x, a) g = Relu (h) y = MatMul (g, b)
}"""
RECIPE = onnxprune.Recipe(target="channels=0.5", align="1")


def write(path: Path, seed: int = 0, *, external: bool = True) -> None:
    rng = np.random.default_rng(seed)
    proto = parser.parse_model(NET)
    for name, shape in (("a", (32, 64)), ("b", (64, 32))):
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    if external:
        path.with_name("m.data").unlink(missing_ok=True)
    onnx.save(proto, path, save_as_external_data=external, location="m.data", size_threshold=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def at_the_cut(change: Callable[[], object]) -> Callable[[str], None]:
    """Does something once, when the model is cut."""

    def tell(text: str) -> None:
        if text.startswith("cutting"):
            change()

    return tell


def rewrite(path: Path) -> None:
    """Other bytes in the same place."""
    with path.open("r+b") as file:
        file.write(np.random.default_rng(1).standard_normal(path.stat().st_size // 8).tobytes())
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [rewrite, Path.unlink, lambda path: shutil.copy(__file__, path)])
def test_data_that_changes_while_a_model_is_pruned_is_noticed(path: Path, change: Callable[[Path], object]) -> None:
    data = path.with_name("m.data")
    with pytest.raises(
        ChangedError, match=r"m\.data: was changed or replaced while the command ran|m\.data .* missing|ends before"
    ):
        onnxprune.prune(path, RECIPE, progress=at_the_cut(lambda: change(data)))


def test_a_graph_that_is_replaced_is_noticed(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "other.onnx", 1, external=False)
    with pytest.raises(ChangedError, match=r"m\.onnx: was changed or replaced while the command ran, and nothing was written"):
        onnxprune.prune(path, RECIPE, progress=at_the_cut(lambda: (tmp_path / "other.onnx").replace(path)))


def test_a_plan_names_the_file_that_was_read(path: Path) -> None:
    result = onnxprune.prune(path, RECIPE)
    assert result.plan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == digest_of(path)


def test_nothing_is_written_when_an_input_has_changed(path: Path) -> None:
    out = path.with_name("out.txt")

    def run() -> None:
        with watched():
            Model.of(path)
            os.utime(path, ns=(1, 1))
            with replace_file(out) as file:
                file.write(b"text")

    with pytest.raises(ChangedError, match="run the command again"):
        run()
    assert not out.exists()
    assert not list(path.parent.glob(".out*"))


def test_a_file_that_is_read_again_must_be_the_same(path: Path) -> None:
    def run() -> None:
        with watched(), watched():
            note(path)
            os.utime(path, ns=(1, 1))
            Model.of(path)

    with pytest.raises(ChangedError, match="was changed"):
        run()
    Model.of(path)


def test_what_the_command_writes_may_change(path: Path) -> None:
    with watched():
        Model.of(path)
        with replace_file(path.with_name("m.data")) as file:
            file.write(b"own")
        os.utime(path, ns=(1, 1))
        replaced(path)
        check_unchanged()


def test_the_digest_is_that_of_what_was_read(path: Path) -> None:
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with watched():
        Model.of(path)
        assert digest_of(path) == before
    write(path, 2, external=False)
    assert digest_of(path) == hashlib.sha256(path.read_bytes()).hexdigest() != before


def test_files_of_its_own_folder_may_change() -> None:
    with watched(), temporary_folder() as folder:
        write(folder / "m.onnx")
        Model.of(folder / "m.onnx")
        write(folder / "m.onnx", 1, external=False)
        Model.of(folder / "m.onnx")
    assert not folder.exists()


def test_what_is_looked_at_beside_an_output_may_go(path: Path) -> None:
    part = path.with_name(".new.onnx.01234567.part")
    shutil.copy(path, part)
    with watched():
        model = Model.of(path)
        files.save(model, path.with_name("new.onnx"))
    assert not part.exists()
