"""The data file of a replaced model goes, unless something may need it; what killed writers left goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
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
left = 10**9
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
def save(seed):
    files.save(Model.of(chain(seed=seed)), Path(sys.argv[1]))
"""
KILLED = (
    STOPS
    + """
for line in sys.stdin:  # each time in a process that is forked here: the imports take longer than all else
    left = int(line)
    child = os.fork()
    if not child:
        save(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
)
TESTS = str(Path(__file__).resolve().parents[1])


@pytest.mark.skipif(sys.platform == "win32", reason="kills")
def test_killed_anywhere_a_model_in_two_files_is_whole_and_the_next_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, states = tmp_path / "out.onnx", [{t.name: t.raw_data for t in chain(seed=n).graph.initializer} for n in range(3)]
    monkeypatch.setattr(files, "LIMIT", 1000)
    seen, leftovers = set(), set()
    command, pipe = [sys.executable, "-c", KILLED, str(path), TESTS], subprocess.PIPE
    with subprocess.Popen(command, env=ENV, stdin=pipe, stdout=pipe, text=True) as forking:
        assert forking.stdin
        assert forking.stdout
        for step in count():
            files.save(Model.of(chain()), path)
            assert len(names(tmp_path)) == 2
            print(step, file=forking.stdin, flush=True)
            status = int(forking.stdout.readline())
            if status == 0:
                break
            assert status == -signal.SIGKILL
            seen.add(states.index(weights(path)))
            leftovers.add(len(names(tmp_path)))
        forking.stdin.close()
    assert seen == {0, 1}
    assert max(leftovers) >= 4
    assert weights(path) == states[1]
    assert len(names(tmp_path)) == 2


def test_weights_are_those_of_one_writer_and_nothing_else_is_left(tmp_path: Path) -> None:
    """Two processes write the same output at once: the result is one of the two."""
    path, program = tmp_path / "out.onnx", STOPS + "for _ in range(20): save(int(sys.argv[2]))"
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), str(seed), TESTS], env=ENV) for seed in (1, 2)]
    assert [one.wait() for one in running] == [0, 0]
    assert weights(path) in [{t.name: t.raw_data for t in chain(seed=n).graph.initializer} for n in (1, 2)]
    assert len(names(tmp_path)) == 2
