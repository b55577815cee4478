"""The data file of a replaced model goes, unless something may need it; what killed writers left goes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from command import ENV
from onnxprune.ir import files, needed
from onnxprune.ir.model import Model
from two_files import chain, names, weights


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LIMIT", 1000)
    monkeypatch.setattr(files, "LARGE", 1000)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("rounds", [2, 3])
def test_replacing_leaves_no_orphan(tmp_path: Path, rounds: int) -> None:
    path = tmp_path / "out.onnx"
    for seed in range(rounds):
        files.save(Model.of(chain(seed=seed)), path)
    assert weights(path) == {t.name: t.raw_data for t in chain(seed=rounds - 1).graph.initializer}
    assert len(names(tmp_path)) == 2
    files.LIMIT = 2**20
    files.save(Model.of(chain(8)), path)
    assert names(tmp_path) == {"out.onnx"}


@pytest.mark.usefixtures("small_limit")
def test_data_that_another_model_reads_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "out.onnx", tmp_path / "copy.onnx"
    files.save(Model.of(chain()), path)
    other.write_bytes(path.read_bytes())
    before = weights(other)
    files.save(Model.of(chain(seed=1)), path)
    assert weights(other) == before
    assert weights(path) != before


@pytest.mark.usefixtures("small_limit")
def test_data_that_the_input_reads_from_another_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path, source = tmp_path / "sub" / "out.onnx", tmp_path / "in.onnx"
    files.save(Model.of(chain()), path)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = f"sub/{entry.value}" if entry.key == "location" else entry.value
    source.write_bytes(proto.SerializeToString())
    before = weights(source)
    files.save(Model.of(source), path)
    assert weights(source) == before == weights(path)


@pytest.mark.usefixtures("small_limit")
def test_data_of_another_name_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    onnx.save(chain(), path, save_as_external_data=True, location="shared.bin", size_threshold=0)
    files.save(Model.of(chain(seed=1)), path)
    assert names(tmp_path) == {"out.onnx", "out.onnx.data", "shared.bin"}


def copy(path: Path, to: str) -> Path:
    place = path.parent / to
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(path.read_bytes())
    return place


def link(path: Path, to: str) -> Path:
    """A copy of the graph in another folder, with a link to the data."""
    place = copy(path, to)
    place.with_name("out.onnx.data").symlink_to(os.path.relpath(path.with_name("out.onnx.data"), place.parent))
    return place


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize(
    ("keep", "to"),
    [
        (copy, "out.onnx.bak"),
        (copy, "OUT2.ONNX"),
        (copy, ".hidden"),
        (copy, ".other.onnx.01234567.part"),
        (link, "old/out.onnx"),
    ],
)
def test_data_that_a_copy_needs_stays(tmp_path: Path, keep: Callable[[Path, str], Path], to: str) -> None:
    path = tmp_path / "out.onnx"
    files.save(Model.of(chain()), path)
    place = keep(path, to)
    files.save(Model.of(chain(seed=1)), path)
    assert (tmp_path / "out.onnx.data").exists()
    data = {name: array.tobytes() for name, array in ((n, w.array()) for n, w in Model.of(path).weights.items())}
    assert data == {t.name: t.raw_data for t in chain(seed=1).graph.initializer}
    for tensor in onnx.load(place, load_external_data=False).graph.initializer:
        for entry in tensor.external_data:
            assert entry.key != "location" or (place.parent / entry.value).exists()
    place.unlink()
    if keep is copy:
        files.save(Model.of(chain(seed=2)), path)
        assert "out.onnx.1.data" not in names(tmp_path)


@pytest.mark.usefixtures("small_limit")
def test_a_hard_link_keeps_the_data_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    files.save(Model.of(chain()), path)
    place = copy(path, "old/out.onnx")
    place.with_name("out.onnx.data").hardlink_to(tmp_path / "out.onnx.data")
    files.save(Model.of(chain(seed=1)), path)
    assert names(tmp_path) == {"old", "out.onnx", "out.onnx.1.data"}
    assert weights(place) == {t.name: t.raw_data for t in chain().graph.initializer}


@pytest.mark.usefixtures("small_limit")
def test_in_doubt_data_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.onnx"
    files.save(Model.of(chain()), path)
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("text")
    monkeypatch.setattr(needed, "_ENTRIES", 3)
    files.save(Model.of(chain(seed=1)), path)
    assert "out.onnx.data" in names(tmp_path)


STOPS = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop())
from onnxprune.ir import files, needed, outputs
from onnxprune.ir.model import Model
from two_files import chain
files.LIMIT = files.LARGE = 1000
left = int(sys.argv[2])
def passed():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
def around(module, name):
    plain = getattr(module, name)
    def call(*args, **kwargs):
        passed()
        result = plain(*args, **kwargs)
        passed()
        return result
    setattr(module, name, call)
for module, name in ((files, "_with_data"), (files, "_name_data"), (outputs.Part, "sync"), (outputs.Part, "put"),
                     (needed, "_remove_unneeded"), (os, "open"), (Path, "unlink"), (outputs.Part, "close")):
    around(module, name)
files.save(Model.of(chain(seed=1)), Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills")
def test_killed_anywhere_a_model_in_two_files_is_whole_and_the_next_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, states = tmp_path / "out.onnx", [{t.name: t.raw_data for t in chain(seed=n).graph.initializer} for n in range(3)]
    monkeypatch.setattr(files, "LIMIT", 1000)
    seen, leftovers, step = set(), set(), 0
    while True:
        files.save(Model.of(chain()), path)
        assert len(names(tmp_path)) == 2
        tests = str(Path(__file__).resolve().parents[1])
        command = [sys.executable, "-c", STOPS, str(path), str(step), tests]
        if subprocess.run(command, env=ENV, check=False).returncode == 0:
            break
        seen.add(states.index(weights(path)))
        leftovers.add(len(names(tmp_path)))
        step += 1
    assert seen == {0, 1}
    assert max(leftovers) >= 4
    assert weights(path) == states[1]
    assert len(names(tmp_path)) == 2


def test_weights_are_those_of_one_writer_and_nothing_else_is_left(tmp_path: Path) -> None:
    """Two processes write the same output at once: the result is one of the two."""
    program = STOPS.replace("left = int(sys.argv[2])", "left = 10**9").replace("seed=1", "seed=int(sys.argv[2])")
    path, tests = tmp_path / "out.onnx", str(Path(__file__).resolve().parents[1])
    program = program.replace("files.save(", "for _ in range(20): files.save(")
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), str(seed), tests], env=ENV) for seed in (1, 2)]
    assert [one.wait() for one in running] == [0, 0]
    assert weights(path) in [{t.name: t.raw_data for t in chain(seed=n).graph.initializer} for n in (1, 2)]
    assert len(names(tmp_path)) == 2
