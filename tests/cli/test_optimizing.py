"""`optimize` on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from command import Cli, complaints, inside
from onnxprune.driver import optimize as driver
from optimizable import X, clock, net, steady_table


@pytest.fixture(autouse=True)
def steady(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network and samples in the working directory, and a clock."""
    monkeypatch.chdir(tmp_path)
    steady_table(tmp_path_factory, monkeypatch)
    monkeypatch.setattr(driver.Clock, "at", lambda _: clock())
    onnx.save(net(), "net.onnx")
    np.savez("calib.npz", x=X)


SMALL = ("optimize", "net.onnx", "-o", "small.onnx", "--calib", "calib.npz", "--metric", "mse")


def test_the_table_says_what_was_tried_and_chosen(call: Cli) -> None:
    done = call(*SMALL, "--target", "size=0.15")
    assert done.status == 0, done.err
    assert Path("small.onnx").is_file()
    for text in ("what each lever gave", "chosen", "not enough", "pruned == masked", "each fourth sample", "measured afresh"):
        assert text in done.out
    assert "requested size=0.15, obtained latency=0." in done.out


def test_json_and_the_page_have_the_same(call: Cli) -> None:
    pytest.importorskip("altair", reason="pages need the extra report")
    report = call(*SMALL, "--target", "size=0.15", "--json", "--report", "page.html").json()
    assert inside(Path("page.html")) == report
    assert report["size"] <= 0.15
    assert [lever["lever"] for lever in report["levers"]] == ["channels", "precision"]
    assert sum(row["chosen"] for row in report["tried"]) == 1
    assert report["bytes"] == Path("small.onnx").stat().st_size


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--target", "size=0.001"), 1, "target size=0.001 cannot be reached"),
        (("--target", "macs=0.5"), 2, "write latency=0.25 or size=0.2"),
        (("--target", "size=0.5", "--max-drop", "1%"), 2, "leave one out"),
        (("--time", "soon"), 2, "write how long to search"),
        (("--calib", "nothing.npz"), 2, "no such file or folder"),
        (("--max-drop", "much"), 2, "write what the score may lose"),
    ],
)
def test_one_line_and_nothing_written(call: Cli, options: tuple[str, ...], status: int, message: str) -> None:
    done = call(*SMALL, *options)
    assert done.status == status
    assert message in done.err
    assert len(complaints(done).strip().splitlines()) == 1
    assert not Path("small.onnx").exists()
