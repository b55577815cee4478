"""Control flow as PyTorch writes it: scripted loops and branches from the old exporter, torch.cond and scan from the new one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from nets import check_law, some
from onnxprune import Recipe, prune
from onnxprune.driver.prune import analyze
from onnxprune.ir.node import every_node

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = pytest.importorskip("torch")
    from torch import Tensor, nn

WIDTH = 16


class Cell(nn.Module):
    """An LSTM cell in plain operations."""

    def __init__(self) -> None:
        super().__init__()
        self.ih, self.hh = nn.Linear(6, 4 * WIDTH), nn.Linear(WIDTH, 4 * WIDTH, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.ih(x) + self.hh(h)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Unbound(nn.Module):
    """Reads a list of steps, time first, and stacks a list of states: the custom LSTM of TorchScript's own benchmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = Cell(), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.unbind(0)
        h = torch.zeros(x.size(1), 16)
        c = h
        states = []
        for i in range(len(steps)):
            h, c = self.cell(steps[i], h, c)
            states.append(h)
        y: Tensor = self.out(torch.stack(states))
        return y


class Joined(nn.Module):
    """Takes steps from a tensor, batch first, and joins states along time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = Cell(), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 16)
        c = torch.zeros_like(h)
        states = []
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], h, c)
            states.append(h.unsqueeze(1))
        y: Tensor = self.out(torch.cat(states, dim=1))
        return y


class Refined(nn.Module):
    """Convolutions repeated as often as the caller says, or until something happens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.a, self.b = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)

    def forward(self, x: Tensor, n: int) -> Tensor:
        h = self.stem(x)
        for _ in range(n):
            h = h + self.b(torch.relu(self.a(h)))
            if bool(h.sum() > 1e6):
                break
        y: Tensor = self.head(h)
        return y


class Branched(nn.Module):
    """Two ways from one hidden width to another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 2)
        self.a, self.a2, self.b = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        y = self.a2(torch.relu(self.a(h))) if bool(h.sum() > 20) else self.b(h)
        z: Tensor = self.head(y)
        return z


RECURRENT = [(WIDTH, 5)]  # both matrices, one of them twice, the bias, and what reads the states
BRANCHED = [(WIDTH, 4), (12, 3), (WIDTH, 5)]
SCRIPTED: dict[str, tuple[type[nn.Module], tuple[Any, ...], dict[int, str], list[tuple[int, int]]]] = {
    "unbound": (Unbound, (torch.zeros(5, 2, 6),), {0: "T", 1: "N"}, RECURRENT),
    "joined": (Joined, (torch.zeros(2, 5, 6),), {0: "N", 1: "T"}, RECURRENT),
    "refined": (Refined, (torch.zeros(2, 3, 8, 8), torch.tensor(3)), {0: "N"}, [(8, 6), (12, 3)]),
    "branched": (Branched, (torch.zeros(2, 6),), {0: "N"}, BRANCHED),
}
"""Network, inputs, open sizes, and of each group its size and the number of its members."""


def check(model: onnx.ModelProto, groups: list[tuple[int, int]]) -> None:
    """These groups are found, obey the law, and shrink to a half from end to end."""
    found = analyze(model)
    assert [(group.size, len(group.members)) for group in found.coupling.groups] == groups
    for seed in range(2):
        check_law(found, {group.id: some(group.size, seed) for group in found.coupling.groups})
    report = prune(model, Recipe(target="channels=0.5", align="1", criterion="random")).report
    assert report.verification is not None
    assert report.verification.ok
    assert not report.frozen
    assert report.after.params < 0.6 * report.before.params


@pytest.mark.parametrize("name", SCRIPTED)
def test_scripted(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind, args, dynamic, groups = SCRIPTED[name]
    file = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old exporter's, about itself
        names = ["x", "n"][: len(args)]
        script = torch.jit.script(kind().eval())
        torch.onnx.export(script, args, file, dynamo=False, opset_version=17, input_names=names, dynamic_axes={"x": dynamic})
    model = onnx.load(file)
    assert any(node.op_type in {"If", "Loop"} for node in model.graph.node)
    check(model, groups)
    assert not any("Sequence" in node.op_type for node in every_node(analyze(model).model.graph))


class Conditional(Branched):
    """The same with torch.cond, which the new exporter takes."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))

        def yes(h: Tensor) -> Tensor:
            result: Tensor = self.a2(torch.relu(self.a(h)))
            return result

        def no(h: Tensor) -> Tensor:
            result: Tensor = self.b(h)
            return result

        y: Tensor = self.head(torch.cond(h.sum() > 20, yes, no, (h,)))
        return y


class Scanned(nn.Module):
    """A recurrent layer as a scan over time."""

    def __init__(self) -> None:
        super().__init__()
        self.wx, self.wh, self.out = nn.Linear(6, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        from torch._higher_order_ops.scan import scan

        def step(h: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(self.wx(xt) + self.wh(h))
            return h, h.clone()

        h, hs = scan(step, torch.zeros(x.shape[1], WIDTH), x, dim=0)
        return self.out(hs), self.out(h)


EXPORTED: dict[str, tuple[type[nn.Module], tuple[int, ...], tuple[str, ...], list[tuple[int, int]]]] = {
    "cond": (Conditional, (2, 6), ("N",), BRANCHED),
    "scan": (Scanned, (7, 2, 6), ("T", "N"), [(WIDTH, 7)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_exported(name: str) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    kind, shape, names, groups = EXPORTED[name]
    dims = {axis: torch.export.Dim(label) for axis, label in enumerate(names)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        program = torch.onnx.export(kind().eval(), (torch.zeros(shape),), dynamo=True, dynamic_shapes=(dims,))
    assert program is not None
    check(program.model_proto, groups)
