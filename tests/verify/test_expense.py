"""A run's memory is estimated before it is made, and dear runs are few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nets import parse
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.runtime import memory
from onnxprune.runtime.partition import Runner
from onnxprune.verify import drift, expense, inputs
from onnxprune.verify.expense import activation_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDE = "(float[N,3,96,96] x) => (float[N,3,96,96] y) <float[3,1,1] w> { h = Mul(x, w)  y = Relu(h) }"


def model() -> Model:
    return Model.of(parse(WIDE))


def test_activations_are_counted_without_weights() -> None:
    image = 3 * 96 * 96 * 4
    assert activation_bytes(model(), {"x": (1, 3, 96, 96)}) == 3 * image
    assert activation_bytes(model(), {"x": (2, 3, 96, 96)}) == 6 * image
    assert activation_bytes(model(), {"x": (1, 3, 8, 8)}) == 0


def test_a_model_whose_run_is_expensive_is_run_at_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = inputs.reference(model(), ["y"], 0, large=True)
    assert ([len(feed["x"]) for feed in plain.feeds], plain.threads) == ([1, 2], 1)
    monkeypatch.setattr(expense, "EXPENSIVE", 1)
    dear = inputs.reference(model(), ["y"], 0, large=True)
    assert ([len(feed["x"]) for feed in dear.feeds], dear.threads) == ([1], 0)
    assert dear.notes == ("other sizes were not tested: a run on x[1, 3, 96, 96] takes long",)


def test_outputs_are_compared_in_batches_and_on_samples_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = Runner.run

    def noticed(self: Runner, feeds: Mapping[str, Any]) -> list[Any]:
        sizes.append(len(feeds["x"]))
        return run(self, feeds)

    monkeypatch.setattr(Runner, "run", noticed)
    assert drift.measure_drift(model(), model(), None).samples == 16
    assert set(sizes) == {16}
    sizes.clear()
    sample = expense.activation_bytes(model(), {"x": (1, 3, 96, 96)})
    monkeypatch.setattr(drift, "DRIFT_BYTES", 2 * sample)
    monkeypatch.setattr(expense, "EXPENSIVE", 5 * sample)
    assert drift.measure_drift(model(), model(), None).samples == 4
    assert set(sizes) == {2}


@pytest.mark.parametrize(
    ("weights", "body"),
    [
        ("int64[1] n = {1000000000}", "c = ConstantOfShape(n)"),
        ("int64[2] n = {1, 250000000}", "c = Tile(x, n)"),
        ("int64 zero = {0}, int64 one = {1}, int64 n = {1000000000}", "r = Range(zero, n, one) c = Cast<to = 1>(r)"),
    ],
)
def test_what_nodes_make_of_a_number_counts(weights: str, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file with small inputs: its run takes four gigabytes, and is refused before it starts."""
    text = f"(float[N,4] x) => (float[N,4] y) <{weights}> {{ {body} s = ReduceSum(c) y = Add(x, s) }}"
    made = Model.of(parse(text))
    assert activation_bytes(made, {"x": (1, 4)}) >= 4 * 10**9
    monkeypatch.setenv(memory.VARIABLE, "2G")
    with pytest.raises(OptionError, match=r"the proof takes about \d+\.\d\d GB for one sample, .* left: raise --max-memory"):
        inputs.reference(made, ["y"], 0)
