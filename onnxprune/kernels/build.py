"""Compiles the library of kernels: a few C files, one of them once for each instruction set, and no Python extension.

The compiler is ``$CC``, the system's, or the one in the wheel ``ziglang``. Only the standard library is used here, since the
build of the package runs this before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from onnxprune.errors import OptionError

__all__ = ["SOURCES", "TARGETS", "Target", "compile_library", "compiler", "digest", "file_name"]

SOURCES = Path(__file__).resolve().parent / "src"
_LOOPS = "micro.c"
"""The source that is compiled once for each instruction set."""
_X86 = {
    "avx512": ("-mavx512f", "-mfma", "-mf16c", "-DVECTOR_BYTES=64", "-DREGISTERS=32"),
    "avx2": ("-mavx2", "-mfma", "-mf16c", "-DVECTOR_BYTES=32"),
    "portable": ("-DVECTOR_BYTES=16",),
}
_ARM = {"neon": ("-DVECTOR_BYTES=16", "-DREGISTERS=32"), "portable": ("-DVECTOR_BYTES=16",)}
_PORTABLE = {"portable": ("-DVECTOR_BYTES=16",)}
_ZIG = (sys.executable, "-m", "ziglang", "cc")
_FLAGS = ("-std=gnu11", "-O3", "-fvisibility=hidden", "-ffp-contract=fast")


@dataclass(frozen=True, slots=True)
class Target:
    """Another machine that the library is compiled for.

    Attributes:
        system: as `sys.platform` spells it.
        machine: as `platform.machine` spells it.
        triple: as the compiler in the wheel ``ziglang`` spells both, with the oldest C library or system that it runs on.
    """

    system: str
    machine: str
    triple: str


TARGETS: Mapping[str, Target] = {
    "manylinux_2_17_x86_64": Target("linux", "x86_64", "x86_64-linux-gnu.2.17"),
    "manylinux_2_17_aarch64": Target("linux", "aarch64", "aarch64-linux-gnu.2.17"),
    "macosx_11_0_x86_64": Target("darwin", "x86_64", "x86_64-macos.11.0"),
    "macosx_11_0_arm64": Target("darwin", "arm64", "aarch64-macos.11.0"),
    "win_amd64": Target("win32", "AMD64", "x86_64-windows-gnu"),
}
"""The machines that there are wheels for, by the platform tag of the wheel (PEP 600, PEP 425)."""


def file_name(system: str = sys.platform) -> str:
    """The name of the library on a system, as `sys.platform` spells that."""
    endings = {"win32": ".dll", "darwin": ".dylib"}
    return "onnxprune_kernels" + endings.get(system, ".so")


def digest() -> str:
    """What tells builds apart: the sources, how they are compiled, and for what machine."""
    found = hashlib.sha256(repr((sys.platform, platform.machine(), _FLAGS, _sets(platform.machine()))).encode())
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in {".c", ".h"}:
            found.update(source.name.encode() + source.read_bytes())
    return found.hexdigest()[:16]


def compiler() -> list[str]:
    """The command of a C compiler; nothing if there is none.

    ``$CC`` comes first, then ``cc``, ``gcc`` and ``clang``, then ``ziglang`` if that is installed.
    """
    asked = shlex.split(os.environ.get("CC", ""))
    if asked:
        return asked
    found = None if sys.platform == "win32" else next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found:
        return [found]
    return [*_ZIG] if find_spec("ziglang") else []


def compile_library(to: Path, extra: Sequence[str] = (), target: Target | None = None, command: Sequence[str] = ()) -> Path:
    """Compile the library; the file is there whole or not at all.

    Args:
        to: the file to write; its folder is made.
        extra: more flags for compiler and linker, as ``-fsanitize=address``.
        target: the machine that it is for, by the compiler in ``ziglang``; this machine if there is none.
        command: the compiler for this machine; what `compiler` finds if it is empty.

    Raises:
        OptionError: there is no compiler, or it fails; says what it said.
    """
    if target is not None and not find_spec("ziglang"):
        raise OptionError("sparse kernels for other machines are compiled by zig: run pip install ziglang")
    command = [*_ZIG, "-target", target.triple] if target else [*(command or compiler())]
    if not command:
        raise OptionError("the sparse kernels are not built: there is no C compiler: install one, or run pip install ziglang")
    to.parent.mkdir(parents=True, exist_ok=True)
    system, machine = (target.system, target.machine) if target else (sys.platform, platform.machine())
    shared = [*_FLAGS, *(() if system == "win32" else ("-fPIC",)), *extra]
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        objects = []
        for source in sorted(SOURCES.glob("*.c")):
            for name, flags in _variants(source, machine).items():
                objects.append(str(Path(folder, f"{name}.o")))
                _run([*command, *shared, *flags, "-c", str(source), "-o", objects[-1]])
        made = Path(folder, to.name)
        _run([*command, *extra, "-shared", *objects, "-o", str(made)])
        made.replace(to)
    return to


def _sets(machine: str) -> Mapping[str, tuple[str, ...]]:
    """The instruction sets of a machine, with the flags of each."""
    if machine.lower() in {"x86_64", "amd64"}:
        return _X86
    return _ARM if machine.lower() in {"aarch64", "arm64"} else _PORTABLE


def _variants(source: Path, machine: str) -> dict[str, tuple[str, ...]]:
    """The object files that are made of a source, with the flags of each."""
    if source.name != _LOOPS:
        return {source.stem: ()}
    return {f"{source.stem}_{name}": (f"-DISA={name}", *flags) for name, flags in _sets(machine).items()}


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a compiler and our sources
    except OSError as error:
        raise OptionError(f"the sparse kernels are not built: {command[0]}: {error.strerror}") from error
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise OptionError(f"the sparse kernels are not built: {' '.join(command[:2])} failed: {said}")
