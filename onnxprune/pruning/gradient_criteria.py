"""What gradients say of weights and channels, by name; the functions need PyTorch and are in `onnxprune.torch.importance`.

`prune` ranks channels by them, and `sparsify` weights (`onnxprune.sparse.selection`).
"""

from __future__ import annotations

from onnxprune.options.registries import CRITERIA
from onnxprune.options.registry import LABELS, SAMPLES, TORCH

_BY_OUTPUTS = {
    "taylor": "How the outputs move without it, to the first order (Molchanov et al. 2019).",
    "fisher": "How the outputs move without it, to the second order by the Fisher matrix (LeCun et al. 1990).",
    "synflow": "Where the large paths are (Tanaka et al. 2020); of the samples only shapes are read.",
}
_BY_LABELS = {
    "snip": "What the loss is sensitive to (Lee et al. 2019).",
    "grasp": "What the flow of gradients needs (Wang et al. 2020).",
    "movement": "What moves away from zero in a short fine-tuning (Sanh et al. 2020).",
}

for _texts, _needs in ((_BY_OUTPUTS, (SAMPLES, TORCH)), (_BY_LABELS, (SAMPLES, TORCH, LABELS))):
    for _name, _text in _texts.items():
        CRITERIA.add(_name, f"onnxprune.torch.importance:{_name}", _text, _needs)
