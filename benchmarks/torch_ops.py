"""Run the node tests of the onnx package on the PyTorch side, and write the counts by operator to docs/torch_ops.md.

A node test is one node with inputs, and with the outputs of the standard's reference. Only tests count whose operators have a
function, and whose tensor types PyTorch has; *floating* are those with floating-point inputs or outputs.

    python benchmarks/torch_ops.py [-o docs/torch_ops.md] [--failures]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, numpy_helper

from onnxprune.ir.node import STANDARD_DOMAINS, domain_of, every_node
from onnxprune.torch import to_module
from onnxprune.torch.registry import find_operator, registered_operators
from onnxprune.torch.tensors import from_array

ROOT = Path(__file__).resolve().parent.parent
FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
PLAIN = FLOATS | {
    TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
}  # fmt: skip
RANDOM = frozenset({"Bernoulli", "RandomUniformLike", "RandomNormalLike", "Multinomial"})
"""Operators whose results are random: only types and shapes can be compared."""
HEAD = """# Operators of the PyTorch side

This page lists the operators that `onnxprune.torch.to_module` computes. They were checked by the node tests of the onnx
package; a test of a function that is expanded into other operators counts for the function. Written by
`python benchmarks/torch_ops.py`.

*floating*: how many tests with floating-point inputs or outputs pass, of all such tests. *others*: the same for tests on
integers, booleans and lists. An operator without tests is checked on whole models, and by the other tests in `tests/torch`.

"""


@dataclass(frozen=True, slots=True)
class Case:
    """A node test: its model, with inputs and expected outputs."""

    name: str
    op: str
    domain: str
    model: Any
    data: Any
    rtol: float
    atol: float
    floating: bool


@dataclass(slots=True)
class Count:
    """Tests of one operator, by kind."""

    floating: list[bool] = field(default_factory=list)
    others: list[bool] = field(default_factory=list)


def _elem_types(model: Any) -> set[int]:
    """Element types of inputs and outputs; -1 for values that are neither tensors nor lists of tensors."""
    found = set()
    for value in [*model.graph.input, *model.graph.output]:
        kind = value.type
        for wrapper in ("optional_type", "sequence_type"):
            if kind.HasField(wrapper):
                kind = getattr(kind, wrapper).elem_type
        while kind.WhichOneof("value") == "sequence_type":
            kind = kind.sequence_type.elem_type
        found.add(kind.tensor_type.elem_type if kind.HasField("tensor_type") else -1)
    return found


@cache
def cases() -> tuple[Case, ...]:
    """Every node test that counts on the page."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the onnx package's own arithmetic
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    return tuple(case for test in collected for case in _case(test))


def _case(test: Any) -> Iterator[Case]:
    model = test.model
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    nodes = list(every_node(model.graph))
    if model.functions or not set(opsets) <= {*STANDARD_DOMAINS, "com.microsoft"}:
        return
    version = max((number for domain, number in opsets.items() if domain in STANDARD_DOMAINS), default=0)
    known = all(find_operator(domain_of(node), node.op_type, version) or node.op_type == "Constant" for node in nodes)
    types = _elem_types(model)
    if not known or not types <= PLAIN:
        return
    named = nodes[0].op_type if len(nodes) == 1 else _expanded(test.name, nodes)
    yield Case(test.name, named, domain_of(nodes[0]), model, test.data_sets, test.rtol, test.atol, bool(types & FLOATS))


def _expanded(name: str, nodes: list[Any]) -> str:
    """The operator that a test of an expanded function is named after; else the operator of its last node."""
    words = name.removeprefix("test_").replace("_", "")
    fitting = [op for _, op in registered_operators() if words.startswith(op.lower())]
    return max(fitting, key=len) if fitting and "expanded" in name else str(nodes[-1].op_type)


def _given(value: Any) -> Any:
    """A value of a test, as the module takes it."""
    if isinstance(value, list | tuple):
        return [_given(item) for item in value]
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if value is None:
        return None
    return from_array(np.asarray(value))


def _agrees(ours: Any, theirs: Any, case: Case) -> bool:
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(_agrees(a, b, case) for a, b in zip(ours, theirs, strict=True))
    if theirs is None:
        return ours is None
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    if case.op in RANDOM or not theirs.is_floating_point():
        return case.op in RANDOM or torch.equal(ours, theirs)
    rtol = max(case.rtol, 1e-2) if theirs.dtype == torch.bfloat16 else case.rtol
    return torch.allclose(ours.double(), theirs.double(), rtol=rtol, atol=case.atol, equal_nan=True)


def failure(case: Case) -> str:
    """Why a test fails; empty if it passes."""
    try:
        module = to_module(case.model)
        for given, expected in case.data:
            names = [value.name for value in case.model.graph.input]
            with torch.no_grad():
                results = module.compute(dict(zip(names, map(_given, given), strict=True)))
            for name, theirs in zip(module.outputs, map(_given, expected), strict=True):
                if not _agrees(results[name], theirs, case):
                    return f"{name} differs"
    except Exception as error:  # noqa: BLE001 - whatever happens is a failed test
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return ""


def table() -> tuple[str, dict[tuple[str, str], Count], list[str]]:
    """The page, the counts by operator, and a line for each failure."""
    counts: dict[tuple[str, str], Count] = defaultdict(Count)
    failures = []
    for case in cases():
        wrong = failure(case)
        count = counts[case.domain, case.op]
        (count.floating if case.floating else count.others).append(not wrong)
        if wrong:
            failures.append(f"{case.op} {case.name}: {wrong}")
    for key in registered_operators():
        counts.setdefault(key, Count())
    floating = [passed for count in counts.values() for passed in count.floating]
    others = [passed for count in counts.values() for passed in count.others]
    lines = [HEAD, f"{sum(floating)} of {len(floating)} floating-point tests pass ({sum(floating) / len(floating):.1%}), "]
    lines.append(f"{sum(others)} of {len(others)} others.\n\n| operator | floating | others |\n|---|---|---|\n")
    for (domain, op), count in sorted(counts.items()):
        cells = [f"{sum(tests)} / {len(tests)}" if tests else "" for tests in (count.floating, count.others)]
        lines.append(f"| {f'{domain}::{op}' if domain else op} | {' | '.join(cells)} |\n")
    return "".join(lines), counts, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "torch_ops.md")
    parser.add_argument("--failures", action="store_true", help="print each failing test")
    options = parser.parse_args()
    page, _, failures = table()
    options.output.write_text(page, "utf-8")
    if options.failures:
        print(*failures, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
