"""An ONNX graph as a module of PyTorch, and back: training for models of which only the file is left.

>>> from onnxprune.torch import to_module, write_back
>>> module = to_module("model.onnx")  # doctest: +SKIP
>>> loss(module(images), labels).backward()  # doctest: +SKIP
>>> write_back(module, "model.onnx", "tuned.onnx")  # doctest: +SKIP

`program` is the graph as steps, `module` runs them as a PyTorch module, `ops` has one function for each operator, `roles` says
which constants are trained, `write_back` puts weights back into the file; `criteria` and `importance` score by gradients,
`losses` are what training makes small. Loops and recipes are in `onnxprune.training`.

Change here: what an operator computes in PyTorch (`ops`), a loss, or a criterion by gradients.
Needs the extra ``torch``; ``import onnxprune`` never imports this package.
"""

from __future__ import annotations

from onnxprune.errors import OptionError

try:
    import torch as _torch
except ImportError as error:
    raise OptionError("this needs PyTorch: run pip install 'onnxprune[torch]'") from error

from onnxprune.torch.module import GraphModule, initializer_name, to_module
from onnxprune.torch.write_back import write_back

__all__ = ["GraphModule", "initializer_name", "to_module", "write_back"]

del _torch
