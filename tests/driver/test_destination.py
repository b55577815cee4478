"""A model in a folder of Hugging Face becomes a folder that is loaded alike, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

import onnxprune
from command import net
from nets import parse
from onnxprune.driver.destination import Destination
from onnxprune.errors import OutputError
from onnxprune.ir import files
from onnxprune.ir.model import Model
from onnxprune.ir.outputs import Outputs
from onnxprune.options.prune import Recipe
from two_files import names

MLP = """(float[N,8] x) => (float[N,4] y) <float[8,32] w, float[32] b, float[32,4] v> {
  a = MatMul(x, w) h = Add(a, b) r = Relu(h) y = MatMul(r, v)
}"""
HALF = Recipe(target="channels=0.5", align="1")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a model whose one group has the width that its config says."""
    folder = tmp_path / "home"
    folder.mkdir()
    onnx.save(parse(MLP), folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps({"model_type": "mlp", "intermediate_size": 32, "_name_or_path": "org/mlp"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Old\n")
    return folder


def test_a_folder_is_written_from_python(home: Path) -> None:
    out = home.parent / "small"
    result = onnxprune.prune(home, HALF)
    result.save(out)
    assert names(out) == {"model.onnx", "config.json", "tokenizer.json", "README.md"}
    assert json.loads((out / "config.json").read_text())["intermediate_size"] == 16
    assert Model.of(out).weights["w"].shape == (8, 16)
    text = (out / "README.md").read_text()
    assert text.startswith("---\nlicense: mit\nbase_model: org/mlp\ntags:\n- onnx\n- onnxprune\n---\n\n# small\n")
    assert "| parameters | 416 | 208 | 0.500 |" in text
    with pytest.raises(OutputError, match="exists already: pass --force"):
        result.save(out)
    result.save(out, force=True)


def test_a_file_is_written_where_one_is_asked_for(home: Path) -> None:
    onnxprune.prune(home / "model.onnx", HALF).save(home.parent / "small.onnx")
    assert names(home.parent) == {"home", "small.onnx"}
    onnx.save(net(), home.parent / "alone.onnx")
    assert Destination.of(home.parent / "small", home.parent / "alone.onnx") == Destination(home.parent / "small")


def test_nothing_is_written_over_the_original(home: Path) -> None:
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    for force in (False, True):
        with pytest.raises(OutputError, match="is the path of another file of this command"):
            Destination.of(home, home / "model.onnx", force=force)
    (home.parent / "notes").write_text("mine")
    with pytest.raises(OutputError, match=r"notes: is a file, and a folder is written: name another place, or an \.onnx file"):
        Destination.of(home.parent / "notes", home / "model.onnx", force=True)
    with pytest.raises(OutputError, match="there is no folder"):
        Destination.of(home.parent / "missing" / "small", home / "model.onnx")
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before


def test_an_error_leaves_no_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    place = Destination.of(home.parent / "small", home / "model.onnx")
    monkeypatch.setattr(files, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        place.save(Model.of(home))
    assert names(home.parent) == {"home"}


def test_several_models_share_a_config(home: Path) -> None:
    onnx.save(parse(MLP), home / "decoder.onnx", save_as_external_data=True, location="decoder.bin", size_threshold=0)
    out = home.parent / "small"
    saved = Destination.of(out, home / "model.onnx").save(onnxprune.prune(home, HALF).compiled)
    assert {"model.onnx", "decoder.onnx", "decoder.bin"} <= names(out)
    assert json.loads((out / "config.json").read_text())["intermediate_size"] == 32
    assert saved.notes == ("config.json: sizes are those of the original, which the folder's other models have",)


def test_variants_of_the_original_stay_behind(home: Path) -> None:
    onnx.save(parse(MLP), home / "model_int8.onnx")
    saved = Destination.of(home.parent / "small", home / "model.onnx").save(Model.of(home))
    assert "model_int8.onnx" not in names(home.parent / "small")
    assert saved.notes == ("left out, because they are made of the original: model_int8.onnx",)


def test_a_folder_in_the_original_is_not_copied_into_itself(home: Path) -> None:
    out = home / "small"
    with Outputs() as outputs:
        saved = Destination.of(out, home / "model.onnx").save(Model.of(home), outputs=outputs)
    assert saved.sha256 == files.sha256(out / "model.onnx")
    onnxprune.prune(home, HALF).save(out, force=True)
    assert names(out) == {"model.onnx", "config.json", "tokenizer.json", "README.md"}
