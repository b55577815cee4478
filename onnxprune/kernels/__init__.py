"""Sparse kernels for ONNX Runtime: zeros in weights make convolutions and matrix products faster.

>>> import onnxruntime, onnxprune.kernels
>>> options = onnxruntime.SessionOptions()
>>> onnxprune.kernels.register(options)  # doctest: +SKIP
>>> session = onnxruntime.InferenceSession("fast.onnx", options)  # doctest: +SKIP

The kernels are C, in ``src``: ``micro.c`` has the loops, once for each instruction set; ``pack.c`` packs weights; ``multiply.c``
goes through tiles; ``conv.c`` and ``matmul.c`` lay inputs out; ``operators.c`` and ``library.c`` are what ONNX Runtime calls, by
the numbers in ``ort.h``. `build` compiles them, `loading` finds the library.

Change here: a loop (``micro.c``), an instruction set (``cpu.c``, `build`), an operator (``library.c``, and
`onnxprune.sparse.kernel_nodes`, which writes it into files).
"""

from __future__ import annotations

from onnxprune.kernels.loading import instruction_set, library, register

__all__ = ["instruction_set", "library", "register"]
