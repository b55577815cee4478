"""The law on plans, and the groups that break it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from nets import LAYER_NORM, NETS, both, parse, some
from onnxprune import Recipe, prune
from onnxprune.axes.plan import Plan
from onnxprune.driver.proof import Judge, broken, demand, judged, kept_by
from onnxprune.driver.prune import analyze
from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import Normalize, PruneChannels
from onnxprune.passes.analysis import Normalized
from onnxprune.shapes.probes import probe
from onnxprune.verify.verdicts import Check

FOUND = analyze(parse(NETS["residual"]))
PLAN = Plan({group.id: np.array(some(group.size)) for group in FOUND.coupling.groups})
JUDGE = Judge(Model.of(parse(NETS["residual"])), FOUND.model)
FAILED = Check(ok=False, error=1.0, text="'y' differs")


def test_the_law_holds_for_what_was_cut_and_for_nothing_else() -> None:
    pruned = PruneChannels().run(FOUND, PLAN)
    assert JUDGE.prove(FOUND, PLAN, pruned).ok
    pruned.weights["w2"] = Weight("w2", None, pruned.weights["w2"].array() * np.float32(1.01))
    assert not JUDGE.prove(FOUND, PLAN, pruned).ok


def test_inexact_groups_need_only_run() -> None:
    found = analyze(parse(LAYER_NORM), allow_inexact=True)
    (group,) = found.coupling.groups
    pruned, masked = both(found, {group.id: [0, 2, 3]})
    plan = Plan({group.id: np.array([0, 2, 3])})
    judge = Judge(Model.of(parse(LAYER_NORM)), found.model)
    assert judge.prove(found, plan, pruned).ok
    outcome = judge.prove(found, plan, masked)  # as large as the original, and runs
    assert outcome.ok
    assert not judge.prove(found, plan, FOUND.model).ok


def test_what_a_plan_keeps_of_a_value() -> None:
    kept = kept_by(FOUND.coupling, PLAN)
    rows, columns, *_ = kept("w1")
    assert rows is not None
    assert columns is not None
    assert (rows.tolist(), columns.tolist()) == (some(6), some(8))
    assert kept("nowhere") == ()


def test_the_groups_that_break_it_are_named() -> None:
    def holds(names: Sequence[str]) -> bool:
        return "b" not in names

    assert broken("net", ["a", "b", "c"], holds, FAILED) == {"b": "the verifier found: 'y' differs"}


def test_a_model_that_breaks_it_without_any_group() -> None:
    with pytest.raises(VerificationError, match=r"^net: cannot be verified: 'y' differs; --no-verify skips the proof$"):
        broken("net", ["a"], lambda _: False, FAILED)


# --- The file itself judges ------------------------------------------------------------------------------------------

FRAMES = """(float[1,T] x) => (float[F,8] y) <float[256,6] w1, float[6,8] w2> {
  one = Constant<value = int64 {1}>()
  hop = Constant<value = int64 {256}>()
  first = Constant<value = int64[1] {0}>()
  s = Shape(x)
  n = Gather(s, one)
  q = Div(n, hop)
  frames = Max(q, one)
  length = Mul(frames, hop)
  rest = Sub(length, n)
  zero = Constant<value = int64 {0}>()
  missing = Max(rest, zero)
  m = Unsqueeze(missing, first)
  before = Constant<value = int64[3] {0, 0, 0}>()
  pads = Concat<axis = 0>(before, m)
  padded = Pad(x, pads)
  end = Unsqueeze(length, first)
  last = Constant<value = int64[1] {1}>()
  cut = Slice(padded, first, end, last)
  sizes = Constant<value = int64[2] {-1, 256}>()
  f = Reshape(cut, sizes)
  a = MatMul(f, w1)
  b = Relu(a)
  y = MatMul(b, w2)
}"""


def pinning(model: Model) -> None:
    """What two small probes cannot tell from a constant is one: a frame, whatever the length."""
    model.weights["frames"] = Weight("frames", None, np.array(1, np.int64))
    kept = [node for node in model.graph.node if "frames" not in node.output]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def other_attribute(model: Model) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Softmax")
    node.attribute[0].i = 1


def other_constant(model: Model) -> None:
    name = next(name for name, weight in model.weights.items() if weight.is_float)
    model.weights[name] = Weight(name, None, model.weights[name].array() * np.float32(1.01))


SOFT = """(float[N,5,8] x) => (float[N,5,4] y) <float[8,6] w1, float[6,4] w2> {
  a = MatMul(x, w1)
  b = Relu(a)
  c = MatMul(b, w2)
  y = Softmax<axis = 2>(c)
}"""


@pytest.mark.parametrize(
    ("text", "fault", "sizes"),
    [(FRAMES, pinning, r"x\[1, 1024\]"), (SOFT, other_attribute, r"x\[1, 5, 8\]"), (SOFT, other_constant, r"x\[1, 5, 8\]")],
)
def test_a_pass_that_prepares_wrongly_is_caught(
    monkeypatch: pytest.MonkeyPatch, text: str, fault: Callable[[Model], None], sizes: str
) -> None:
    """Both sides of the law would have the fault: the file has not."""
    right = Normalize.run

    def wrong(self: Normalize, model: Model) -> Normalized:
        normal = right(self, model)
        fault(normal.model)
        return replace(normal, shapes=probe(normal.model))

    monkeypatch.setattr(Normalize, "run", wrong)
    with pytest.raises(VerificationError, match=rf"prepared, it computes something else than the file: 'y' .* on {sizes}$"):
        prune(parse(text), Recipe(target="channels=0.5", align="1"))


def test_what_is_prepared_rightly_passes() -> None:
    model = Model.of(parse(SOFT))
    assert judged(analyze(parse(SOFT)).model, model).runs == 3


def test_a_choice_excuses_nothing_where_what_enters_it_is_gone() -> None:
    """Outputs behind a choice may differ only if what is chosen among is compared, and a rewrite can rename that."""
    text = """
    (float[4, 6] x) => (int64[4] y) <float[6, 5] {weight}> {{
      {scores} = MatMul(x, {weight})
      y = ArgMax<axis = 1, keepdims = 0>({scores})
    }}
    """
    source = Model.of(parse(text.format(weight="w", scores="scores")))
    prepared = Model.of(parse(text.format(weight="folded", scores="renamed")))
    prepared.weights["folded"] = Weight("folded", None, -source.weights["w"].array())
    with pytest.raises(VerificationError, match="prepared, it computes something else than the file: 'y'"):
        judged(prepared, source)
    prepared.weights["folded"] = source.weights["w"].renamed("folded")
    assert judged(prepared, source).ok


# --- What must be proven ---------------------------------------------------------------------------------------------

HALF_SILENT = """(float[N,8] x) => (float[N,4] z, float[N,4] y) <float[8,32] w1, float[32,4] w2> {
  a = MatMul(x, w1)
  b = Relu(a)
  z = MatMul(b, w2)
  none = Sub(b, b)
  y = MatMul(none, w2)
}"""


def test_an_output_that_must_be_tested_and_cannot_be() -> None:
    recipe = Recipe(target="channels=0.5", align="1")
    check = prune(parse(HALF_SILENT), recipe).report.verification
    assert check is not None
    assert [one.output for one in check.untested] == ["y"]
    with pytest.raises(VerificationError, match=r"--require-proof: output 'y' was not tested: it is constant on all inputs"):
        prune(parse(HALF_SILENT), replace(recipe, require_proof=True))
    assert prune(parse(SOFT), replace(recipe, require_proof=True)).report.verification


def test_nothing_to_require() -> None:
    with pytest.raises(VerificationError, match="nothing was tested"):
        demand(None, "net")
    with pytest.raises(VerificationError, match="nothing was tested: leave --no-verify out"):
        prune(parse(SOFT), Recipe(target="channels=0.5", align="1", require_proof=True, verify=False))
