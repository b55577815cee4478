"""Processes that end at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command import ENV, names

PROGRAM = """
import sys
import tempfile
import threading
from pathlib import Path

from onnxprune.ir.outputs import Outputs
from onnxprune.ir.sudden_end import clean_before_end, end_now
from onnxprune.ir.temporary import temporary_folder

here, when = Path(sys.argv[1]), sys.argv[2]
tempfile.tempdir = str(here / "tmp")
fails = clean_before_end(lambda: 1 / 0)
clean_before_end((here / "withdrawn").unlink)()
thread = threading.Thread(target=end_now, args=(7,))
with temporary_folder() as folder:
    (folder / "file").write_text("temporary")
    with Outputs() as outputs:
        first, second = (outputs.open(here / name) for name in ("one", "two"))
        for part in (first, second):
            part.file.write(b"new")
        if when == "writing":
            thread.start()
            thread.join()
        put = second.put

        def put_late():
            thread.start()
            thread.join(0.2)
            assert thread.is_alive(), "it must wait for the second file"
            put()

        second.put = put_late
    thread.join()
"""


@pytest.mark.parametrize(("when", "content"), [("writing", "old"), ("putting", "new")])
def test_nothing_temporary_stays_and_outputs_are_whole(tmp_path: Path, when: str, content: str) -> None:
    (tmp_path / "tmp").mkdir()
    for name in ("one", "two", "withdrawn"):
        (tmp_path / name).write_text("old")
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path, when], env=ENV, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    assert [(tmp_path / name).read_text() for name in ("one", "two", "withdrawn")] == [content, content, "old"]
    assert names(tmp_path) == {"one", "two", "withdrawn", "tmp"}
    assert not names(tmp_path / "tmp")
