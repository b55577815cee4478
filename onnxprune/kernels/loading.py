"""Where the library of kernels is, and how ONNX Runtime gets it."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.errors import OptionError
from onnxprune.ir.caches import user_cache
from onnxprune.kernels.build import SOURCES, compile_library, digest, file_name

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["has_kernels", "instruction_set", "library", "register"]

_MARK = b"\x0a\x09onnxprune"
"""The name of the domain as protobuf spells it in an `opset_import`: field 1, length, text. Field 2 of a model, the producer, is
the same text."""


def library() -> Path:
    """The library of kernels: what was installed, or what was compiled earlier, or what is compiled now.

    Any program that runs ONNX Runtime registers it as a library of custom operators: ``RegisterCustomOpsLibrary``.

    Raises:
        OptionError: it is not there, and there is no compiler, or no place to write.
    """
    installed = SOURCES.parent / file_name()
    if installed.is_file():
        return installed
    kept = user_cache() / "kernels" / digest() / file_name()
    if kept.is_file():
        return kept
    try:
        return compile_library(kept)
    except OSError as error:
        raise OptionError(f"the sparse kernels are not built: {kept.parent}: {error.strerror}") from error


def has_kernels(source: str | Path | bytes) -> bool:
    """Whether a file, or its bytes, may have nodes with sparse kernels: whether it names our domain."""
    if isinstance(source, bytes):
        return _MARK in source
    try:
        with Path(source).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(_MARK) >= 0
    except (OSError, ValueError):  # no file, or an empty one: ONNX Runtime says so
        return False


def register(options: onnxruntime.SessionOptions) -> None:
    """Let a session run sparse kernels, where its file has nodes for them.

    Raises:
        OptionError: see `library`.
    """
    options.register_custom_ops_library(str(library()))


def instruction_set() -> str:
    """The instruction set that the kernels use on this machine: ``avx512``, ``avx2``, ``neon`` or ``portable``.

    Raises:
        OptionError: see `library`.
    """
    loaded = ctypes.CDLL(str(library()))
    loaded.onnxprune_kernels_isa.restype = ctypes.c_char_p
    name: bytes = loaded.onnxprune_kernels_isa()
    return name.decode()
