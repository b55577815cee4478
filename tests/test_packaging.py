"""What an installation is: one top-level package, one copy of every pass, and an import that costs little."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from onnxprune.kernels.build import SOURCES, compiler, file_name

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "onnx", "onnxruntime", "onnx_graphsurgeon", "sklearn", "scipy", "PIL"}


def python(code: str, cwd: Path = ROOT) -> str:
    """What a fresh interpreter prints for `code`."""
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("module", ["onnxprune", "onnxprune.axes.factors", "onnxprune.cli"])
def test_import_is_light(module: str) -> None:
    loaded = set(python(f"import sys, {module}; print(*sys.modules)").split())
    assert module in loaded
    assert not loaded & HEAVY


def test_passes_folder_is_the_package() -> None:
    assert (ROOT / "onnxprune" / "passes").resolve() == ROOT / "passes"
    imported = python("import onnxprune.passes; print(onnxprune.passes.__file__)").strip()
    assert Path(imported).resolve() == ROOT / "passes" / "__init__.py"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_checkout_without_links_runs(tmp_path: Path, *, elsewhere: bool) -> None:
    tree = tmp_path / "tree"
    for name in ("onnxprune", "passes"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "onnxprune" / "passes").unlink()
    (tree / "onnxprune" / "passes").write_text("../passes")  # what git writes where there are no links
    command = [sys.executable, "-m", "onnxprune", "inspect", str(ROOT / "models" / "digits.onnx")]
    env = {**os.environ, "PYTHONPATH": str(tree) if elsewhere else ""}
    run = subprocess.run(
        command, cwd=tmp_path if elsewhere else tree, env=env, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert run.returncode == 0, run.stderr
    assert "digits.onnx" in run.stdout


def test_a_package_does_not_show_what_lies_beside_it() -> None:
    assert python("import onnxprune; print(len(onnxprune.__path__))").strip() == "1"


def test_tests_see_the_tree_and_not_a_stale_copy() -> None:
    assert Path(python("import onnxprune; print(onnxprune.__file__)").strip()).parent == ROOT / "onnxprune"


def test_constraints_pin_everything_that_tests_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["torch"], *extras["demo"], *extras["images"], *extras["test"]]
    names = {canonicalize_name(Requirement(text).name) for text in wanted} - {"onnxprune", "setuptools"}

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(str(pin.specifier).startswith("==") and "+" not in str(pin.specifier) for pin in pins)
    assert names <= {canonicalize_name(pin.name) for pin in pins}


def test_wheel_has_one_package_with_the_passes_inside(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("onnxprune", "passes", "tests"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    python(f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})", cwd=tree)

    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    kernels = {path.name for path in SOURCES.iterdir()}
    assert {name.rpartition("/")[2] for name in names if name.startswith("onnxprune/kernels/src/")} == kernels
    assert (f"onnxprune/kernels/{file_name()}" in names) == bool(compiler())
    assert ("-py3-none-any" in wheel.name) != bool(compiler())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"onnxprune", "optimum"}
    sources = {f"onnxprune/{path.relative_to(tree / 'onnxprune')}" for path in (tree / "onnxprune").rglob("*.py")}
    sources |= {f"onnxprune/{path.relative_to(tree)}" for path in (tree / "passes").rglob("*.py")}
    registers = {name for name in sources if name.startswith("onnxprune/integrations/register/")}
    sources = sources - registers | {f"optimum/commands/register/{name.rpartition('/')[2]}" for name in registers}
    assert {name for name in names if name.endswith(".py")} == sources
    assert not [name for name in names if name.startswith("optimum/") and name.endswith("__init__.py")]  # others share the folder
    assert "onnxprune/integrations/olive_config.json" in names
    assert "onnxprune/py.typed" in names
    assert {f"onnxprune/cli/digits/{name}" for name in ("digits.onnx", "calib.npz", "test.npz")} <= set(names)  # of the demo


@pytest.mark.parametrize(("path", "needs"), [("", ["ziglang"]), ("compilers", [])])
def test_a_build_without_a_compiler_asks_for_one(tmp_path: Path, path: str, needs: list[str]) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(
        ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "tests", "docs", "models")
    )
    (tmp_path / "compilers").mkdir()
    (tmp_path / "compilers" / "cc").symlink_to(sys.executable)
    asked = f"import os; os.environ['PATH'] = {str(tmp_path / path) if path else ''!r}; os.environ.pop('CC', None)"
    hidden = "import sys; sys.modules['ziglang'] = None" if find_spec("ziglang") else ""
    code = f"{asked}\n{hidden}\nfrom setuptools import build_meta\nprint(build_meta.get_requires_for_build_wheel())"
    assert [name for name in ("ziglang",) if name in python(code, cwd=tree).splitlines()[-1]] == needs
