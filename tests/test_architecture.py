"""The shape of the source: imports flow one way, public names are listed, everything has its test, files stay small."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import onnxprune
from onnxprune import errors
from onnxprune.passes import PASSES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "onnxprune"

LAYERS = [
    ["errors", "axes", "digest", "turns"],
    ["equation", "slices"],
    ["weights"],
    ["node", "synthetic"],
    ["flow", "model", "order"],
    ["precision"],
    ["runtime"],
    ["arithmetic", "definite", "doubles", "segments"],
    ["inference"],
    ["shapes"],
    ["sparse.flat"],
    ["sparse.chain"],
    ["sparse.*"],
    ["sparse.accounting", "sparse.choose"],
    ["sparse"],
    ["rules.registry"],
    ["rules.elementwise", "rules.linear"],  # quantized sums and products are theirs
    ["rules.*"],
    ["rules"],
    ["refusals", "zeros"],
    ["coupling"],
    ["_bench_worker", "affine", "cost", "criteria", "feeds", "frontier", "plan", "preprocess", "ranges", "recipe"],
    ["training"],
    ["quantization"],
    ["divergence", "geometry", "grid", "kernels", "knapsack", "latency_cache", "moments", "norms", "obs", "staged"],
    ["readers", "refit", "sources"],
    ["calibrate"],
    ["calibration"],
    ["statistics"],
    ["bases", "meter", "pairs", "problems"],
    ["sparse.patterns"],
    ["sparse.fit", "sparse.recipe"],
    ["sparse.selection"],
    ["sparse.layers"],
    ["sparse.solve"],
    ["sparse.allocation", "sparse.curves", "sparse.permute"],
    ["bench"],
    ["stopwatch"],
    ["timings"],
    ["latency"],
    ["allocate", "files", "metrics", "values", "verify"],
    ["written", "qdq"],
    ["torch.registry", "torch.tensors"],
    ["torch.roles"],
    ["torch.program"],
    ["torch.ops.conv"],
    ["torch.ops.pool"],  # windows are padded alike
    ["torch.ops.*"],
    ["torch.ops"],
    ["torch.module"],
    ["torch.back", "torch.criteria"],
    ["torch.checkpoint", "torch.data", "torch.devices", "torch.judge", "torch.losses", "torch.masks"],
    ["torch.augment", "torch.groups", "torch.importance", "torch.layers", "torch.unfold"],
    ["torch.channel_masks", "torch.selection", "torch.trainer"],
    ["torch.tuning"],
    ["torch.recipes.registry"],
    ["torch.recipes.gradual", "torch.recipes.magnitude"],  # schedules that others use
    ["torch.recipes.*"],
    ["torch.recipes"],
    ["torch.sparsify"],
    ["torch"],
    ["lossless"],
    ["report"],
    ["console"],
    ["plots", "summaries", "tables"],
    ["passes.base"],
    ["passes.bodies"],
    ["passes.sequences"],
    ["passes.normalize"],  # others build on what it writes
    ["passes.prune_channels"],  # lossless removal masks
    ["passes.rotate"],  # sensitivity and repair work on what it writes
    ["passes.*"],
    ["passes"],
    ["compiler", "exact"],
    ["tune"],
    ["storage"],
    ["quantizer", "sparsifier"],
    ["api"],
    ["torch.channels"],  # prunes between trainings
    ["torch.training"],
    ["steps"],
    ["pipeline"],
    ["cli.app", "cli.derived", "cli.options", "cli.output"],
    ["cli.*"],
    ["cli"],
    ["__main__"],
]
"""Modules from the bottom up; one may import what is below it."""

UPWARD = {
    ("torch.registry", "torch.program"): "for annotations alone: a node holds the bodies that are its attributes",
    ("zeros", "coupling"): "for annotations alone: the walk reads the nodes that the coupling passes it",
}
"""Imports against the current, and why they do no harm; all are under TYPE_CHECKING."""

PROTOBUF = {"weights", "node", "flow", "model", "precision", "runtime", "segments", "arithmetic", "inference", "shapes"}
PROTOBUF |= {"definite", "doubles", "qdq", "frontier", "feeds", "files", "kernels", "stopwatch", "staged", "passes.repair"}
PROTOBUF |= {"sparse.chain", "sparse.coo", "sparse.decode", "sparse.flat", "passes.encode", "passes.fold_masks"}
PROTOBUF |= {"torch.augment", "torch.back", "torch.program", "torch.tensors", "torch.unfold"}
PROTOBUF |= {"passes.bodies", "passes.lossless", "passes.sequences", "passes.normalize", "passes.prune_channels"}
"""Modules that use onnx when they run; annotations may name its types anywhere."""

UNTESTED = {
    "__main__": "tests/cli/test_app.py runs it",
    "cli": "tests/cli/test_app.py",
    "cli.building": "test_pipeline",
    "cli.quantizing": "test_quantizer",
    "_bench_worker": "test_bench",
    "definite": "test_inference",
    "qdq": "test_quantizer",
    "quantization": "test_quantizer",
    "console": "test_tables",
    "steps": "test_pipeline",
    "summaries": "test_pipeline and tests/cli/test_training.py",
    "node": "test_model and every rule",
    "weights": "test_model",
    "written": "test_api and test_storage",
    "refusals": "test_coupling",
    "sparse": "every test of what is in it",
    "rules": "tests/rules/test_law.py",
    "passes": "test_architecture and every test of a pass",
    "torch": "test_architecture and tests/torch",
    "torch.recipes": "tests/torch/test_sparsify.py",
    "torch.program": "tests/torch/test_module.py",
    "torch.registry": "tests/torch/test_ops.py",
}
"""Modules without a test file of their own, and where they are tested."""

SOFT_LIMIT = 420
"""Lines of a file."""


def modules() -> dict[str, Path]:
    """Every module of the package but its __init__, by name without the package's."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")] = path
    for path in (ROOT / "passes").glob("*.py"):  # a link, which rglob does not follow
        found[f"passes.{path.stem}".removesuffix(".__init__")] = path
    del found["__init__"]
    return found


MODULES = modules()


def layer(module: str) -> int:
    places = [at for at, names in enumerate(LAYERS) if module in names]
    places += [at for at, names in enumerate(LAYERS) if any("*" in name and fnmatchcase(module, name) for name in names)]
    assert places, f"{module} is new: give it a place in LAYERS"
    return places[0]


def imports(module: str, *, types: bool) -> Iterator[str]:
    """What a module imports at any level, as full names; with `types`, for annotations too."""
    stack: list[ast.AST] = [ast.parse(MODULES[module].read_text())]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not types:
            stack.extend(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            stack.extend(ast.iter_child_nodes(node))


def internal(module: str, *, types: bool) -> set[str]:
    """Modules of the package that a module imports."""
    found = set()
    for name in imports(module, types=types):
        package, _, inner = name.partition(".")
        if package == "onnxprune":
            while inner and inner not in MODULES:
                inner = inner.rpartition(".")[0]
            found.add(inner or "__init__")
    return found


def external(module: str, *, types: bool) -> set[str]:
    return {name.partition(".")[0] for name in imports(module, types=types)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_flow_one_way(module: str) -> None:
    for other in internal(module, types=True):
        assert other != "__init__", f"{module} imports a public name: import it from its module"
        if (module, other) in UPWARD:
            assert other not in internal(module, types=False)
            continue
        below = layer(other) < layer(module)
        assert below, f"{module} imports {other}, which is not below it"


def test_upward_imports_are_still_there() -> None:
    assert all(other in internal(module, types=True) for module, other in UPWARD)


def test_layers_name_modules() -> None:
    assert {name for names in LAYERS for name in names if "*" not in name} <= MODULES.keys()


def test_axes_and_equations_know_nothing_of_onnx() -> None:
    for module in ("axes", "equation", "errors", "plan", "recipe"):
        assert not external(module, types=True) & {"onnx", "onnxruntime", "onnx_graphsurgeon"}


def test_few_modules_touch_protobufs() -> None:
    assert {module for module in MODULES if "onnx" in external(module, types=False)} <= PROTOBUF


def test_few_modules_know_the_runtime() -> None:
    users = {module for module in MODULES if "onnxruntime" in external(module, types=False)}
    assert users <= {"runtime", "_bench_worker", "qdq"}


def test_extras_are_no_requirement() -> None:
    for module in MODULES:
        assert not external(module, types=False) & {"torch", "sklearn", "scipy"} or module.partition(".")[0] == "torch"
        assert "PIL" not in external(module, types=False) or module in {"preprocess", "sources"}


# Public names


def test_public_names_are_exactly_these() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    declared = {
        alias.name
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert onnxprune.__all__ == sorted(onnxprune.__all__)
    assert declared == set(onnxprune.__all__) == set(dir(onnxprune))


@pytest.mark.parametrize("name", onnxprune.__all__)
def test_public_name_resolves(name: str) -> None:
    value = getattr(onnxprune, name)
    assert value.__name__ == name
    assert value.__doc__, f"{name} is public and has no documentation"


def test_other_names_do_not_resolve() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Refusals'"):
        _ = onnxprune.Refusals


def test_every_exception_is_public() -> None:
    assert set(errors.__all__) <= set(onnxprune.__all__)
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == set(errors.__all__)
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in errors.__all__), "errors.py draws the tree in its docstring"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_listed_names_exist(module: str) -> None:
    if module == "__main__":
        return
    loaded = importlib.import_module(f"onnxprune.{module}")
    missing = [name for name in getattr(loaded, "__all__", []) if not hasattr(loaded, name)]
    assert not missing


# Everything has its test


@pytest.mark.parametrize("name", sorted(PASSES))
def test_every_pass_has_a_test(name: str) -> None:
    assert PASSES[name].name == name
    assert (ROOT / "tests" / "passes" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_has_a_test(module: str) -> None:
    family, _, name = module.rpartition(".")
    if family in {"rules", "torch.ops", "torch.recipes"}:
        return  # the law, the conformance, and tests/torch/test_sparsify.py run over the registry
    file = ROOT.joinpath("tests", *family.split("."), f"test_{name}.py")
    assert file.is_file() != (module in UNTESTED), f"{file.relative_to(ROOT)}: {UNTESTED.get(module, 'missing')}"


# Size


@pytest.mark.parametrize("module", sorted(MODULES))
def test_files_stay_small(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= SOFT_LIMIT, f"{module} has {lines} lines: split it"
