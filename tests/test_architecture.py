"""The shape of the source: imports flow one way, public names are listed, everything has its test, files stay small."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import onnxprune
from onnxprune import errors, passes

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "onnxprune"

ROOMS = [
    "errors",
    "options",
    "ir",
    "kernels",
    "runtime",
    "shapes",
    "axes",
    "data",
    "verify",
    "linear",
    "latency",
    "pruning",
    "sparse",
    "torch",
    "passes",
    "pages",
    "driver",
    "training",
    "pipeline",
    "sweep",
    "integrations",
    "cli",
    "__main__",
]
"""Folders of the package from the bottom up; a module may import from rooms above its own in this list, at any level."""

PROTOBUF = {
    "ir.weights",
    "ir.node",
    "ir.trips",
    "ir.validate",
    "ir.inferred",
    "runtime.affordable",
    "runtime.draws",
    "ir.control_flow",
    "ir.model",
    "ir.parameters",
    "ir.plain",
    "ir.subgraph",
    "ir.precision",
    "ir.sized",
    "runtime.session",
    "runtime.partition",
    "shapes.size_arithmetic",
    "shapes.inference",
    "ir.sizes",
}
PROTOBUF |= {
    "shapes.binding",
    "verify.float64",
    "verify.structure",
    "verify.shaking",
    "driver.int8_layers",
    "driver.interface",
    "driver.int8_result",
    "driver.ort_quantizer",
    "ir.discontinuities",
    "data.batching",
    "ir.files",
    "latency.int8_form",
    "latency.segments",
    "latency.timer",
    "latency.worklist",
    "runtime.stages",
    "passes.repair",
    "passes.round_weights",
}
PROTOBUF |= {
    "sparse.encoding.decoder",
    "sparse.encoding.coo",
    "sparse.encoding.forms",
    "sparse.encoding.flat",
    "passes.compact",
    "passes.encode",
    "passes.fold_masks",
    "passes.mask_source",
    "passes.restore",
    "passes.use_kernels",
    "sparse.kernel_nodes",
}
PROTOBUF |= {
    "driver.kernels",
    "driver.tracking",
    "driver.levers.rounding",
    "training.augment",
    "torch.write_back",
    "torch.program",
    "torch.tensors",
    "training.batchnorm",
    "training.fake_quantization",
}
PROTOBUF |= {
    "passes.bodies",
    "passes.constants",
    "passes.lossless",
    "passes.sequences",
    "passes.normalize",
    "passes.prune_channels",
    "passes.smooth",
}
"""Modules that use onnx when they run; annotations may name its types anywhere."""

UNTESTED = {
    "__main__": "tests/cli/test_app.py runs it",
    "cli.building": "test_pipeline",
    "cli.demo_tables": "tests/cli/test_demo.py",
    "latency.model": "tests/latency/test_profiler.py",
    "runtime.int8_operators": "tests/latency/test_int8_form.py",
    "shapes.binding": "test_inference",
    "driver.ort_quantizer": "test_quantizer",
    "options.quantize": "test_quantizer",
    "options.benchmark": "tests/pipeline/test_run.py",
    "options.commands": "every test of a command",
    "options.shared": "every test of a recipe",
    "pruning.gradient_criteria": "tests/torch/test_importance.py",
    "cli.console": "test_tables",
    "cli.optimize_tables": "tests/cli/test_optimizing.py",
    "pipeline.steps": "test_pipeline",
    "sweep.runner": "tests/sweep/test_run.py",
    "sweep.searching": "tests/sweep/test_run.py",
    "cli.sweep_tables": "tests/cli/test_sweeping.py",
    "cli.training_tables": "test_pipeline and tests/cli/test_training.py",
    "ir.node": "test_model and every rule",
    "ir.weights": "test_model",
    "driver.result": "test_prune and test_encode",
    "driver.sparsifier": "tests/driver/test_sparsify.py",
    "axes.refusals": "test_coupling",
    "axes.node_axes": "test_coupling, and every rule",
    "ir.types": "nothing runs",
    "integrations.register.register_onnxprune": "tests/integrations/test_optimum.py",
    "torch.program": "tests/torch/test_module.py",
    "training.phase": "tests/training/test_trainer.py",
}
"""Modules without a test file of their own, and where they are tested."""

SOFT_LIMIT = 400
"""Lines of a file."""

FUNCTION_LIMIT = 60
"""Lines of a function, its signature and its documentation included."""

GUESTS = {
    "integrations.olive": "olive",
    "integrations.optimum": "optimum.commands.base",
    "integrations.register.register_onnxprune": "optimum.commands.base",
}
"""Modules that another program imports, and the module of it that they cannot be imported without."""


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


def room(module: str) -> str:
    return module.partition(".")[0]


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
def test_imports_go_one_way_through_the_rooms(module: str) -> None:
    for other in internal(module, types=True):
        assert other != "__init__", f"{module} imports a public name: import it from its module"
        goes_up = ROOMS.index(room(other)) <= ROOMS.index(room(module))
        assert goes_up, f"{module} imports {other}, whose room comes later in ROOMS"


def test_rooms_are_the_folders() -> None:
    assert {room(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("folder", ROOMS)
def test_no_circle_inside_a_room(folder: str) -> None:
    """A package counts as its modules; its ``__init__`` may import them, and they do not import it."""
    inside = {module: internal(module, types=True) - {module} for module in MODULES if room(module) == folder}
    graph = TopologicalSorter({module: others & inside.keys() for module, others in inside.items()})
    graph.prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", [folder for folder in ROOMS if folder in MODULES and (PACKAGE / folder).is_dir()])
def test_a_room_says_what_is_in_it(folder: str) -> None:
    text = ast.get_docstring(ast.parse(MODULES[folder].read_text())) or ""
    assert "Change here:" in text, f"{folder}/__init__.py does not say what a newcomer changes there"


def test_axes_and_equations_know_nothing_of_onnx() -> None:
    for module in ("axes.factors", "axes.equation", "errors", "axes.plan", "options.prune"):
        assert not external(module, types=True) & {"onnx", "onnxruntime", "onnx_graphsurgeon"}


def test_few_modules_touch_protobufs() -> None:
    assert {module for module in MODULES if "onnx" in external(module, types=False)} <= PROTOBUF


def test_few_modules_know_the_runtime() -> None:
    users = {module for module in MODULES if "onnxruntime" in external(module, types=False)}
    assert users <= {
        "runtime.session",
        "runtime.stopping",
        "runtime.custom_operators",
        "latency.providers",
        "latency.stopwatch",
        "latency.on_device",
        "driver.ort_quantizer",
        "runtime.int8_operators",
    }


def test_extras_are_no_requirement() -> None:
    for module in MODULES:
        assert not external(module, types=False) & {"torch", "sklearn", "scipy"} or room(module) in {"torch", "training"}
        assert "PIL" not in external(module, types=False) or module in {"data.preprocess", "data.sources", "pages.thumbnails"}


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
    if module in GUESTS:
        pytest.importorskip(GUESTS[module])
    loaded = importlib.import_module(f"onnxprune.{module}")
    missing = [name for name in getattr(loaded, "__all__", []) if not hasattr(loaded, name)]
    assert not missing


# Everything has its test


@pytest.mark.parametrize("name", passes.__all__)
def test_every_pass_has_a_test(name: str) -> None:
    file = "_".join(word.lower() for word in re.findall("[A-Z][a-z]+", name))
    assert (ROOT / "tests" / "passes" / f"test_{file}.py").is_file()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_has_a_test(module: str) -> None:
    family, _, name = module.rpartition(".")
    if MODULES[module].name == "__init__.py":
        return  # tests of what is in it
    if family in {"axes.rules", "torch.ops", "training.recipes"}:
        return  # the law, the conformance, and tests/training/test_weights.py run over the registry
    file = ROOT.joinpath("tests", *family.split("."), f"test_{name.lstrip('_')}.py")
    assert file.is_file() != (module in UNTESTED), f"{file.relative_to(ROOT)}: {UNTESTED.get(module, 'missing')}"


# Size


@pytest.mark.parametrize("module", sorted(MODULES))
def test_files_stay_small(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= SOFT_LIMIT, f"{module} has {lines} lines: split it"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_functions_stay_small(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LIMIT, f"{module}.{node.name} has {lines} lines: split it"
