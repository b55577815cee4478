"""Builds the library of sparse kernels into the wheel; all else is in pyproject.toml.

It is C behind the C interface of ONNX Runtime, and no Python extension: one file for each platform, for every Python. Where
there is no compiler, a build asks for the one in the wheel ``ziglang``; where that does not work either, the wheel has the
sources alone, and the kernels are compiled when they are first asked for. With ``bdist_wheel --plat-name`` the library is that of
another platform, one of `onnxprune.kernels.build.TARGETS`; ``make wheels`` builds all.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))

from onnxprune.errors import OptionError
from onnxprune.kernels.build import TARGETS, compile_library, compiler, file_name


def asked(package: Distribution) -> str:
    """The platform that the wheel is for; empty if it is for this one."""
    tag = package.get_option_dict("bdist_wheel").get("plat_name", ("", ""))[1]
    if tag and tag not in TARGETS:
        raise SystemExit(f"--plat-name {tag}: there are kernels for {', '.join(TARGETS)}")
    return tag


class WithLibrary(build_py):
    """Copies the package, and compiles the library into the copy."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # nothing is copied: the library is compiled at first use
            return
        if tag := asked(self.distribution):
            target = TARGETS[tag]
            compile_library(Path(self.build_lib, "onnxprune", "kernels", file_name(target.system)), ["-s"], target)
            return
        try:
            compile_library(Path(self.build_lib, "onnxprune", "kernels", file_name()))
        except OptionError as error:
            self.announce(str(error), level=3)


class ForPlatform(Distribution):
    """A package for one platform, if it has the library."""

    def has_ext_modules(self) -> bool:
        return bool(asked(self) or compiler())


class ForEveryPython(bdist_wheel):
    """A wheel for any Python, whatever the platform."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


needs = ["ziglang"] if "egg_info" in sys.argv and not compiler() else []  # a build asks what it needs by egg_info
commands = {"build_py": WithLibrary, "bdist_wheel": ForEveryPython}
setup(distclass=ForPlatform, cmdclass=commands, setup_requires=needs)
