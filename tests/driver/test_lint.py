from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from command import external, net
from onnxprune.driver.encode import encode
from onnxprune.driver.lint import lint
from onnxprune.errors import OptionError


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A model with 90 % of its first weight zero."""
    weight = np.random.default_rng(0).standard_normal((32, 3, 3, 3)).astype(np.float32)
    weight[np.random.default_rng(1).random(weight.shape) < 0.9] = 0
    onnx.save(net(weight), tmp_path / "sparse.onnx")
    return tmp_path / "sparse.onnx"


def test_zeros_that_are_stored_are_a_problem(sparse: Path) -> None:
    (found,) = lint([sparse])
    assert found.zeros is not None
    assert found.zeros > 0.6
    assert found.problems[0].endswith(f"run onnxprune encode {sparse} -o {sparse.with_name('sparse-encoded.onnx')}")
    assert not lint([sparse], max_zeros="90%")[0].problems


def test_what_it_says_mends_it(sparse: Path) -> None:
    made = sparse.with_name("encoded.onnx")
    encode(sparse).save(made)
    (found,) = lint([made])
    assert not found.problems
    assert found.zeros is not None
    assert found.zeros < 0.5


def test_a_file_over_a_size_is_a_problem_with_its_data(tmp_path: Path) -> None:
    path = external(tmp_path / "big.onnx")
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    (found,) = lint([path], str(size - 1))
    assert (found.bytes, len(found.problems)) == (size, 1)
    assert "--max-size" in found.problems[0]
    assert not lint([path], str(size))[0].problems


def test_a_pointer_of_git_lfs_has_the_size_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 70000000\n")
    (found,) = lint([path], "50M")
    assert (found.bytes, found.zeros, found.readable) == (70_000_000, None, True)
    assert found.problems
    assert not lint([path], "100M")[0].problems


def test_one_file_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, sparse: Path) -> None:
    (tmp_path / "text.onnx").write_text("text")
    found = lint([tmp_path / "text.onnx", tmp_path / "gone.onnx", sparse])
    assert [one.readable for one in found] == [False, False, True]
    assert all(str(tmp_path) in one.problems[0] for one in found)


@pytest.mark.parametrize(("size", "zeros"), [("big", "50%"), ("0", "50%"), ("", "150%"), ("", "many")])
def test_limits_make_sense(size: str, zeros: str) -> None:
    with pytest.raises(OptionError, match="--max-"):
        lint([], size, zeros)
