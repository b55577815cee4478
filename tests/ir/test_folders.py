from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxprune.errors import ModelError
from onnxprune.ir.folders import ModelFolder, document, model_in


def make(folder: Path, *names: str, config: str = '{"model_type": "bert"}') -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(config if name.endswith("config.json") else name)
    return folder


@pytest.mark.parametrize(
    ("names", "model"),
    [
        (["model.onnx", "model_int8.onnx"], "model.onnx"),
        (["net.onnx", "config.json"], "net.onnx"),
        (["onnx/model.onnx", "onnx/model_fp16.onnx"], "onnx/model.onnx"),
        (["config.json"], ""),
        (["deep/onnx/model.onnx"], ""),
    ],
)
def test_the_model_in_a_folder(tmp_path: Path, names: list[str], model: str) -> None:
    assert model_in(make(tmp_path, *names)) == tmp_path / model


def test_of_several_models_the_user_names_one(tmp_path: Path) -> None:
    make(tmp_path, "decoder_model.onnx", "encoder_model.onnx")
    with pytest.raises(ModelError, match=r"has 2 models: name one of them: decoder_model\.onnx, encoder_model\.onnx"):
        model_in(tmp_path)
    assert model_in(tmp_path / "encoder_model.onnx") == tmp_path / "encoder_model.onnx"


@pytest.mark.parametrize(
    ("names", "config", "known"),
    [
        (["m.onnx", "config.json"], '{"architectures": ["BertModel"]}', True),
        (["m.onnx", "config.json"], '{"port": 80}', False),
        (["m.onnx", "config.json"], "[1]", False),
        (["m.onnx", "config.json"], "{", False),
        (["m.onnx", "genai_config.json"], "{}", True),
        (["m.onnx"], "", False),
    ],
)
def test_what_is_a_folder_of_hugging_face(tmp_path: Path, names: list[str], config: str, known: bool) -> None:
    found = ModelFolder.of(make(tmp_path, *names, config=config) / "m.onnx")
    assert (found is not None) == known
    assert found is None or found.root == tmp_path


def test_what_belongs_to_a_model(tmp_path: Path) -> None:
    ours = ["config.json", "tokenizer.json", "vocab.txt", "spiece.model", "LICENSE.md", "1_Pooling/config.json"]
    others = ["onnx/other.onnx"]
    foreign = ["model.safetensors", "README.md", "notes.pdf", ".cache/x.json", "small/model.onnx", "small/config.json"]
    make(tmp_path, "onnx/model.onnx", "onnx/model_int8.onnx", *ours, *others, *foreign)
    found = ModelFolder.of(tmp_path / "onnx" / "model.onnx")
    assert found is not None
    assert {str(path.relative_to(tmp_path)) for path in found.beside} == set(ours)
    assert found.others == [tmp_path / "onnx" / "other.onnx"]
    assert found.variants == [tmp_path / "onnx" / "model_int8.onnx"]


@pytest.mark.parametrize("levels", [100, 600, 100_000])
def test_a_config_as_deep_as_nobody_writes_is_none(tmp_path: Path, levels: int) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x", "a": ' + "[" * levels + "]" * levels + "}")
    assert document(tmp_path / "config.json") == {}


def test_a_document_that_is_none_is_empty(tmp_path: Path) -> None:
    assert document(tmp_path / "missing.json") == {}
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    assert document(tmp_path / "config.json") == {"a": 1}
