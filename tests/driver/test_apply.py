"""apply(), carry_out(), check(), check_repaired(): plans carried out, and what was made by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from nets import HALF, LAYER_NORM, NETS, parse, residual, residual_file
from onnxprune import (
    OptionError,
    Plan,
    PlanError,
    Recipe,
    Result,
    VerificationError,
    apply,
    check,
    check_repaired,
    make_plan,
    prune,
)
from onnxprune.data.samples import open_samples
from onnxprune.driver.apply import carry_out, foreign, unrepaired
from onnxprune.driver.compiler import Compiler
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.runtime.session import random_feeds
from onnxprune.shapes.candidates import bindings


def samples_for(model: ModelProto) -> dict[str, Any]:
    inputs = Model.of(model).inputs
    return random_feeds(inputs, {name: (64, *shape[1:]) for name, shape in bindings(inputs)[0].items()}, 3)


def repaired(model: ModelProto, **fields: Any) -> Result:
    return prune(model, Recipe(target="channels=0.5", align="1", **fields), samples=samples_for(model), agreement=False)


def with_weight(model: ModelProto, name: str, array: Any) -> ModelProto:
    changed = ModelProto()
    changed.CopyFrom(model)
    (tensor,) = (tensor for tensor in changed.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return changed


def scaled(model: ModelProto, name: str) -> ModelProto:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return with_weight(model, name, numpy_helper.to_array(tensor) * np.float32(1.01))


def test_a_plan_for_another_file_is_foreign(tmp_path: Path) -> None:
    path = residual_file(tmp_path)
    plan = make_plan(path, HALF)[0]
    assert foreign(path, plan) == foreign(str(path), plan) == ""
    assert foreign(residual(), plan) == ""  # there is no file to compare
    other = tmp_path / "other.onnx"
    other.write_bytes(path.read_bytes() + onnx.ModelProto(doc_string="another run").SerializeToString())
    text = foreign(other, plan)
    assert text.startswith(f"{other} is not the file that the plan was made for (net.onnx, sha256 {plan.sha256[:12]}")
    assert foreign(other, prune(residual(), HALF).plan) == ""  # it was made for no file
    apply(other, plan)


def test_a_plan_for_another_model() -> None:
    plan, _ = make_plan(residual(), HALF)
    other = parse(NETS["flatten"])
    with pytest.raises(PlanError, match="no prunable group of this model"):
        apply(other, plan)


def test_check_sees_a_wrong_model_and_another_interface() -> None:
    plan, _ = make_plan(residual(), HALF)
    small = apply(residual(), plan).to_proto()
    assert check(residual(), small, plan).ok
    (tensor,) = (tensor for tensor in small.graph.initializer if tensor.name == "w2")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), "w2"))
    outcome = check(residual(), small, plan)
    assert not outcome.ok
    assert "'y' differs" in outcome.text
    renamed = apply(residual(), plan).to_proto()
    renamed.graph.output[0].name = renamed.graph.node[-1].output[0] = "z"
    assert check(residual(), renamed, plan).text == "graph output 'y' is not the original's"
    static = apply(residual(), plan).to_proto()
    static.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert check(residual(), static, plan).text == "graph input 'x' is not the original's"
    other = Plan({name: np.flip(kept.max() - kept) for name, kept in plan.keep.items()})
    assert not check(residual(), apply(residual(), plan), other).ok


def test_what_is_carried_out_wrongly_is_refused_unless_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = make_plan(residual(), HALF)

    def wrong(self: Compiler, pruned: Any) -> Any:
        raise AssertionError("it was refused before")

    monkeypatch.setattr(Compiler, "_proof", lambda *_: check(residual(), residual(), plan))
    monkeypatch.setattr(Compiler, "_finished", wrong)
    with pytest.raises(VerificationError, match=r"<model>: the plan was not carried out: .*; prune leaves such groups whole"):
        apply(residual(), plan)
    monkeypatch.undo()
    assert carry_out(residual(), plan, Recipe(verify=False)).check is None


# --- Repaired models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "fields"), [*((name, {}) for name in NETS), ("residual", {"seed": 3, "protect": ("w3",)})])
def test_a_plan_with_samples_is_what_prune_makes_and_its_surgery_is_proven(name: str, fields: dict[str, Any]) -> None:
    model, samples = parse(NETS[name]), samples_for(parse(NETS[name]))
    made = repaired(model, **fields)
    assert made.plan.samples == "samples in memory"
    again = carry_out(model, made.plan, Recipe(seed=fields.get("seed", 0)), samples=open_samples(samples, Model.of(model).inputs))
    assert again.model.to_proto().SerializeToString(deterministic=True) == made.model.SerializeToString(deterministic=True)
    found = check_repaired(model, made.model, made.plan, samples=samples)
    assert found.check.ok
    assert found.repaired
    assert found.drift is not None
    assert found.drift.source == "samples"
    assert not check(model, made.model, made.plan).ok


@pytest.mark.parametrize("name", ["w1", "b1", "var"])
def test_what_repair_does_not_change_must_be_right(name: str) -> None:
    model = parse(NETS["chain"])
    made = repaired(model)
    assert check_repaired(model, made.model, made.plan).repaired == ("w2", "w3", "w2__bias", "w3__bias")
    assert check_repaired(model, scaled(made.model, "w2"), made.plan).check.ok
    outcome = check_repaired(model, scaled(made.model, name), made.plan).check
    assert not outcome.ok
    assert outcome.text.endswith(f"; constant {name!r} has other values than it must have")


def other_shape(model: ModelProto) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "w3")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:, :, 0], "w3"))


def other_node(model: ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Sigmoid"


def more_nodes(model: ModelProto) -> None:
    model.graph.node[-1].output[0] = "z"
    model.graph.node.add(op_type="Abs", input=["z"], output=["y"])


def other_opset(model: ModelProto) -> None:
    model.opset_import[0].version -= 1


def more_constants(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "more"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (other_shape, "constant 'w3' has the shape"),
        (other_node, "(Sigmoid) is not the one that must be there"),
        (more_nodes, "is not the one that must be there"),
        (other_opset, "its operator sets are others"),
        (more_constants, "constant 'more' is not one of those that must be there"),
    ],
)
def test_a_repaired_model_of_another_structure(change: Any, text: str) -> None:
    made = repaired(residual())
    change(made.model)
    outcome = check_repaired(residual(), made.model, made.plan).check
    assert not outcome.ok
    assert text in outcome.text


def test_a_plan_without_samples_takes_nothing_for_repair_unless_it_is_told_to() -> None:
    plan, _ = make_plan(residual(), HALF)
    assert unrepaired(plan, HALF) == plan.samples == ""
    samples = open_samples(samples_for(residual()), Model.of(residual()).inputs)
    small = carry_out(residual(), plan, samples=samples).model.to_proto()
    outcome = check_repaired(residual(), small, plan).check
    assert not outcome.ok
    assert "only weights differ that repair may change" in outcome.text
    assert "--repaired takes that for one" in outcome.text
    assert check_repaired(residual(), small, plan, repaired=True).check.ok
    with pytest.raises(OptionError, match="--masked with --calib"):
        carry_out(residual(), plan, masked=True, samples=samples)


def test_no_run_proves_inexact_groups_but_their_bits_do() -> None:
    model = parse(LAYER_NORM)
    plan, _ = make_plan(model, Recipe(target="channels=0.5", align="1", allow_inexact=True))
    small = apply(model, plan)
    assert check_repaired(model, small, plan).check.ok
    name = next(name for name, weight in small.weights.items() if weight.shape != Model.of(model).weights[name].shape)
    small.weights[name] = Weight(name, None, small.weights[name].array() * 7)
    assert check(model, small, plan).ok
    outcome = check_repaired(model, small, plan).check
    assert not outcome.ok
    assert outcome.text.startswith("no run proves what is inexact; ")
