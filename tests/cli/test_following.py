"""Progress: phases are counted, time left is told, and without a terminal there are lines."""

from __future__ import annotations

import os
import re
import time

import numpy as np
import pytest

from command import DIGITS, shell
from onnxprune.cli import following
from onnxprune.cli.following import Follower, Position
from onnxprune.driver.progress import Phase


def test_phases_are_counted_as_they_are_expected() -> None:
    now = [0.0]
    place = Position("reading", ("analysis", "repair", "writing"), lambda: now[0])
    assert str(place) == "phase 1 of 4: reading"
    now[0] = 2.0
    assert place.tell(Phase("finding groups", "analysis")) == "phase 1 of 4: reading, 2.0 s"
    assert place.tell("a detail") == ""
    assert str(place) == "phase 2 of 4: a detail"
    assert place.tell(Phase("repairing", "repair"))
    place.tell(Phase("finding again", "analysis"))
    assert str(place) == "phase 3 of 4: finding again"
    place.tell(Phase("other", "unexpected"))
    assert str(place) == "phase 3 of 4: other"
    place.tell(Phase("writing", "writing"))
    assert str(place) == "phase 4 of 4: writing"


@pytest.mark.parametrize("text", ["repairing (3 of 9)", "finetune: epoch 3/9, loss 0.1", "measuring a (3/9)"])
def test_time_left_follows_from_steps_that_are_counted(text: str) -> None:
    now = [0.0]
    place = Position("reading", ("repair",), lambda: now[0])
    place.tell(Phase("repairing", "repair"))
    assert place.left is None
    now[0] = 4.0
    place.tell(text)
    assert place.left == pytest.approx(14.0)  # two of nine steps took 4 s
    assert place.done == pytest.approx((1 + 2 / 9) / 2)


def test_phases_without_a_list_are_numbered() -> None:
    place = Position("reading", ())
    place.tell(Phase("one", "one"))
    place.tell(Phase("two", "two"))
    assert str(place) == "phase 3: two"


def test_a_long_phase_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(following, "EVERY", 0.01)
    wanted = re.compile(r"onnxprune: phase 2 of 2: repairing \(2 of 3\), \d+ s so far, about \d+ s left\n")
    with Follower("reading", ("repair",)) as follower:
        follower.tell(Phase("repairing (2 of 3)", "repair"))
        deadline = time.monotonic() + 60
        err = ""
        while not wanted.search(err) and time.monotonic() < deadline:  # the phase before may be told of, too
            time.sleep(0.01)
            err += capsys.readouterr().err
    assert wanted.search(err)


def test_the_real_command_tells_every_phase_once_in_order(tmp_path: os.PathLike[str]) -> None:
    rng = np.random.default_rng(0)
    calib = f"{os.fspath(tmp_path)}/c.npz"
    np.savez(calib, image=rng.random((32, 1, 8, 8), np.float32))
    done = shell("prune", DIGITS, "-o", f"{os.fspath(tmp_path)}/o.onnx", "--no-benchmark", "--calib", calib)
    assert done.status == 0, done.err
    found = re.findall(r"^onnxprune: phase (\d+) of (\d+): ", done.err, re.MULTILINE)
    numbers = [int(number) for number, _ in found]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(1, int(found[0][1]) + 1))
    assert not shell("inspect", DIGITS, "--json").err
