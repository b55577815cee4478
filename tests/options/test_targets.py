"""Targets, goals and alignment: how they read, and that they print as they read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import OptionError
from onnxprune.options.targets import METRICS, Align, Goal, Target


def test_alignment() -> None:
    assert [Align.parse(text) for text in ("auto", "1", "8")] == [Align(16, 4), Align(1), Align(8)]
    assert [Align.parse(text).suited(timed=True) for text in ("auto", "1", "8")] == [Align(4), Align(1), Align(8)]
    assert [Align.parse(text).suited(timed=False) for text in ("auto", "8")] == [Align(16, 4), Align(8)]
    assert [str(Align.parse(text)) for text in ("auto", "1", "8")] == ["auto", "1", "8"]
    assert [Align.parse(text).told for text in ("auto", "8")] == ["16, in narrow layers 4", "8"]


@pytest.mark.parametrize(
    ("align", "width", "step"),
    [(Align(16, 4), 256, 16), (Align(16, 4), 64, 16), (Align(16, 4), 63, 8), (Align(16, 4), 32, 8), (Align(16, 4), 16, 4),
     (Align(16, 4), 3, 4), (Align(16), 16, 16), (Align(1), 3, 1)],
)  # fmt: skip
def test_narrow_layers_are_cut_in_finer_steps(align: Align, width: int, step: int) -> None:
    assert align.of(width) == step


@pytest.mark.parametrize("metric", METRICS)
def test_a_target_prints_as_it_reads(metric: str) -> None:
    for text in (f"{metric}=0.5", f"{metric}=1", f"{metric}=0.125", f"{metric}=0.1234567"):
        assert str(Target.parse(text)) == text
    assert Target.parse(f" {metric} = .5 ") == Target(metric, 0.5)


@given(st.floats(0, 1, exclude_min=True))
def test_no_digit_of_a_target_is_lost(fraction: float) -> None:
    assert Target.parse(str(Target("macs", fraction))) == Target("macs", fraction)


@given(st.sampled_from(["size", "gzip", "threshold"]), st.floats(1e-3, 1e15))
def test_no_digit_of_a_goal_is_lost(metric: str, value: float) -> None:
    assert Goal.parse(str(Goal(metric, value))) == Goal(metric, value)


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ("sparsity=0.8", "sparsity", 0.8),
        ("threshold=1.5", "threshold", 1.5),
        ("size=2MB", "size", 2e6),
        ("size=0.3", "size", 0.3),
        ("gzip = 1.5 MiB", "gzip", 1.5 * 2**20),
        ("size=4096", "size", 4096),
        ("size=2e+06", "size", 2e6),
        ("latency=0.4", "latency", 0.4),
    ],
)
def test_goals_read(text: str, metric: str, value: float) -> None:
    assert Goal.parse(text) == Goal(metric, value)


@pytest.mark.parametrize(
    "text",
    [
        "0.8",
        "sparsity=80%",
        "sparsity=1",
        "sparsity=-1",
        "size=0",
        "size=2XB",
        "macs=0.5",
        "sparsity=1kB",
        "latency=0",
        "latency=1.5",
        "latency=1kB",
    ],
)
def test_other_goals_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="target"):
        Goal.parse(text)
