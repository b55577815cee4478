"""`--report`: the page of a command, on the real command line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from command import DIGITS, ROOT, complaints, inside, names, net, refused, within
from onnxprune.pages import page

PRUNE = ("prune", "net.onnx", "-o", "small.onnx", "--target", "macs=0.7", "--align", "1", "--no-benchmark")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(net(), tmp_path / "net.onnx")
    return tmp_path


def test_a_command_writes_its_page(folder: Path) -> None:
    done = within(*PRUNE, "--report", "page.html", cwd=folder)
    assert done.status == 0, done.err
    assert not complaints(done)
    made = (folder / "page.html").read_text("utf-8")
    assert "net.onnx" in made
    assert "onnxprune prune net.onnx -o small.onnx" in made
    assert names(folder) == {"net.onnx", "small.onnx", "page.html"}


def test_the_page_of_a_recipe_has_pictures_of_samples_that_get_another_answer(folder: Path) -> None:
    """Which samples judge, a recipe says itself: its ``eval``, else the ``calib`` of a step."""
    pytest.importorskip("PIL", reason="Pillow is an extra")
    test = ROOT / "onnxprune" / "cli" / "digits" / "test.npz"
    step = '[sparsify]\ntarget = "sparsity=0.9"\nmethod = "magnitude"\nrepair = false\n'
    places = (("e", f'eval = "{test.as_posix()}"\n{step}'), ("c", f'{step}calib = "{test.as_posix()}"\n'))
    for name, text in places:
        (folder / f"{name}.toml").write_text(f'model = "{Path(DIGITS).as_posix()}"\noutput = "{name}.onnx"\n{text}')
        done = within("run", f"{name}.toml", "--report", f"{name}.html", cwd=folder)
        assert done.status == 0, done.err
        found = inside(folder / f"{name}.html")
        pictures = (folder / f"{name}.html").read_text("utf-8").count('src="data:image/png')
        assert pictures == len(found["judgement"]["drift"]["changed"]) > 0


def test_a_page_that_is_there_stays(folder: Path) -> None:
    (folder / "page.html").write_text("mine")
    refused(within(*PRUNE, "--report", "page.html", cwd=folder), 2, "page.html", "--force")
    assert (folder / "page.html").read_text() == "mine"
    assert names(folder) == {"net.onnx", "page.html"}
    assert within(*PRUNE, "--report", "page.html", "--force", cwd=folder).status == 0
    assert (folder / "page.html").read_text() != "mine"


def test_without_the_packages_it_is_said_before_anything_is_computed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "altair" else object())
    refused(within(*PRUNE, "--report", "page.html", cwd=folder), 2, "--report needs altair", "onnxprune[report]")
    assert names(folder) == {"net.onnx"}
