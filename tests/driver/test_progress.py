"""Stages that are announced and timed."""

from __future__ import annotations

from onnxprune.driver.progress import Stages


def test_stages_are_timed() -> None:
    told: list[str] = []
    stages = Stages(told.append)
    for text in ("doing one", "doing more of one"):
        with stages("one", text):
            pass
    with stages("other", "doing the other"):
        stages.tell("half of it")
    assert told == ["doing one", "doing more of one", "doing the other", "half of it"]
    assert list(stages.seconds) == ["one", "other"]
    assert all(seconds >= 0 for seconds in stages.seconds.values())
