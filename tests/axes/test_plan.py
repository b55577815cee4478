"""Plans: read, written, refused, applied."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from nets import NETS, parse
from onnxprune import Recipe, prune
from onnxprune.axes.plan import PLAN_FORMAT, Plan
from onnxprune.driver.prune import analyze
from onnxprune.errors import PlanError


def plan_of(**keep: list[int]) -> Plan:
    return Plan({name.replace("_", ":"): np.array(kept, np.int64) for name, kept in keep.items()}, "net.onnx", "00ff")


def test_a_plan_survives_json() -> None:
    coupling = analyze(parse(NETS["residual"])).coupling
    plan = plan_of(w1_0=[0, 2, 5])
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict(coupling))))
    assert (again.file, again.sha256) == ("net.onnx", "00ff")
    assert {name: kept.tolist() for name, kept in again.keep.items()} == {"w1:0": [0, 2, 5]}


def test_the_json_of_a_plan() -> None:
    coupling = analyze(parse(NETS["residual"])).coupling
    whole = {"value": "w0", "axis": 0}
    assert plan_of(w1_0=[0, 2, 5]).to_dict(coupling) == {
        "format": PLAN_FORMAT,
        "model": {"file": "net.onnx", "sha256": "00ff"},
        "groups": [
            {
                "id": "w0:0",
                "size": 8,
                "keep": list(range(8)),
                "exact": True,
                "members": [whole, *({"value": v, "axis": a} for v, a in (("w1", 1), ("w2", 0), ("b2", 0), ("w3", 1)))],
            },
            {
                "id": "w1:0",
                "size": 6,
                "keep": [0, 2, 5],
                "exact": True,
                "members": [{"value": "w1", "axis": 0}, {"value": "w2", "axis": 1}],
            },
        ],
        "refusals": [refusal.to_dict() for refusal in coupling.refusals],
    }


@pytest.mark.parametrize(
    ("net", "group", "keep", "removed"),
    [
        # 8 channels of 4x4 pixels are flattened: each channel is 16 rows
        ("flatten", "w1:0", [0, 1, 2, 3, 4, 5, 7], {("w1", 0): None, ("w2", 0): list(range(96, 112))}),
        # wb is 5 of the left part and 4 of the right one; wl reads 3 + 5
        ("concat_split", "wb:0.1", [0, 1, 2], {("wb", 0): [8], ("wr", 1): None}),
        ("concat_split", "wb:0.0", [1, 2, 3, 4], {("wb", 0): [0], ("wl", 1): [3]}),
        # three projections of 3 heads of 4 channels: a head is 4 columns of each
        ("attention", "wqkv:1.0", [0, 2], {("wqkv", 1): [*range(4, 8), *range(16, 20), *range(28, 32)], ("wo", 0): [4, 5, 6, 7]}),
    ],
)
def test_members_that_are_more_than_the_group_list_what_goes(
    net: str, group: str, keep: list[int], removed: dict[tuple[str, int], list[int] | None]
) -> None:
    coupling = analyze(parse(NETS[net])).coupling
    data = Plan({group: np.array(keep)}).to_dict(coupling)
    (entry,) = (entry for entry in data["groups"] if entry["id"] == group)
    found = {(member["value"], member["axis"]): member.get("removed") for member in entry["members"]}
    assert {place: found[place] for place in removed} == removed


SHARED_BIAS = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[8,3,1,1] w1, float[8] zero, float[8,8,1,1] w2, float[4,8,1,1] w3> {
  a = Conv(x, w1, zero)
  r = Relu(a)
  c = Conv(r, w2, zero)
  y = Conv(c, w3)
}"""


def test_a_copy_of_a_shared_constant_says_of_what() -> None:
    coupling = analyze(parse(SHARED_BIAS)).coupling
    members = {group["id"]: group["members"] for group in Plan().to_dict(coupling)["groups"]}
    assert {"value": "zero", "axis": 0} in members["w1:0"]
    assert {"value": "zero__copy", "axis": 0, "of": "zero"} in members["w2:0"]
    assert not any("__copy" in axis for refusal in coupling.refusals for axis in refusal.axes)


@pytest.mark.parametrize("net", [*NETS, "shared bias"])
def test_another_program_can_check_a_pruned_model_by_its_plan(net: str) -> None:
    """With the two models and the JSON alone: each constant is the original's without what the plan removes."""
    original = parse(NETS.get(net, SHARED_BIAS))
    result = prune(original, Recipe(target="channels=0.6", align="1"))
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer} for model in (original, result.model)
    )
    removed: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for group in json.loads(json.dumps(result.plan.to_dict(result.coupling)))["groups"]:
        gone = set(range(group["size"])) - set(group["keep"])
        for member in group["members"]:
            place = (member["value"], member.get("of", member["value"]), member["axis"])
            removed[place] |= set(member.get("removed", gone))
    for value, of, _ in removed:
        expected = before[of]
        for axis in range(expected.ndim):
            expected = np.delete(expected, sorted(removed.get((value, of, axis), set())), axis)
        np.testing.assert_array_equal(after[value], expected, value)
    assert {value for value, of, _ in removed if value != of} == (set() if net in NETS else {"zero__copy"})
    for name in after.keys() & before.keys() - {value for value, _, _ in removed}:
        assert after[name].shape == before[name].shape, name


def test_without_leaves_groups_whole() -> None:
    plan = plan_of(w0_0=[1], w1_0=[2]).without({"w0:0"})
    assert list(plan.keep) == ["w1:0"]
    assert plan.sha256 == "00ff"


@pytest.mark.parametrize("keep", [[], [-1, 2], [3, 8], [2, 2], [3, 1]])
def test_positions_out_of_order_or_range_are_refused(keep: list[int]) -> None:
    coupling = analyze(parse(NETS["residual"])).coupling
    with pytest.raises(PlanError, match=r"'w0:0' are not ascending positions below 8"):
        plan_of(w0_0=keep).positions(coupling)


def test_a_group_the_model_lacks_is_refused() -> None:
    coupling = analyze(parse(NETS["residual"])).coupling
    with pytest.raises(PlanError, match=r"'other:0', which is no prunable group of this model: make a plan for it"):
        plan_of(other_0=[1]).positions(coupling)


GOOD: dict[str, Any] = {
    "format": PLAN_FORMAT,
    "model": {"file": "", "sha256": ""},
    "groups": [{"id": "a", "size": 3, "keep": [1]}],
}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "not a plan"),
        ({**GOOD, "format": "onnxprune-plan/9"}, "not a plan"),
        ({"format": PLAN_FORMAT, "model": GOOD["model"]}, "damaged: 'groups' is missing"),
        ({**GOOD, "model": None}, "damaged: 'model' is missing, or is not of the JSON type"),
        ({**GOOD, "groups": [{"id": "a", "size": 3, "keep": [[1]]}]}, "'a' is not a list of ascending positions"),
        ({**GOOD, "groups": [{"id": "a", "size": 3, "keep": ["x"]}]}, "'a' is not a list of ascending positions"),
        ({**GOOD, "groups": [{"id": "a", "size": 3, "keep": [0, 3]}]}, "below 3"),
        ({**GOOD, "groups": GOOD["groups"] * 2}, "lists group 'a' twice"),
        ({**GOOD, "groups": [{"id": "a", "keep": [1]}]}, "damaged: 'size' is missing"),
        ({**GOOD, "groups": [{"id": "a", "size": True, "keep": [0]}]}, "damaged: 'size'"),
        ({**GOOD, "groups": [{"id": "a", "size": 3.0, "keep": [0]}]}, "damaged: 'size'"),
        ({**GOOD, "groups": [{"id": ["a"], "size": 3, "keep": [0]}]}, "damaged: 'id'"),
        ({**GOOD, "groups": [[]]}, "damaged: 'id'"),
        ({**GOOD, "groups": {"a": 1}}, "damaged: 'groups'"),
        ({**GOOD, "groups": [{"id": "a", "size": 10**40, "keep": [10**39]}]}, "which no axis has"),
        ({**GOOD, "groups": [{"id": "a", "size": 3, "keep": [True]}]}, "not a list of ascending positions"),
        ({**GOOD, "pruned": {"sha256": 1}}, "damaged: 'sha256'"),
        ({**GOOD, "model": {"file": [], "sha256": ""}}, "damaged: 'file'"),
    ],
)
def test_damaged_plans_are_refused(data: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.from_dict(data)


def test_plan_files(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(PlanError, match=r"plan.json: no such file"):
        Plan.load(path)
    path.write_text("{", "utf-8")
    with pytest.raises(PlanError, match=r"plan.json: not JSON"):
        Plan.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"plan.json: not JSON"):
        Plan.load(path)
    path.write_text(json.dumps(GOOD), "utf-8")
    assert Plan.load(path).keep["a"].tolist() == [1]


def test_plans_are_equal_where_the_same_positions_remain() -> None:
    one = Plan({"a": np.array([0, 2])})
    assert one.equals(Plan({"a": np.array([0, 2])}, file="other"))
    assert not one.equals(Plan({"a": np.array([0, 1])}))
    assert not one.equals(Plan({"a": np.array([0])}))
    assert not one.equals(Plan({"b": np.array([0, 2])}))
    assert not one.equals(Plan())
