"""Recurrent layers, step by step in time; what the inputs contribute is one product for all steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.axes.activations import Activation, activations
from onnxprune.errors import ModelError
from onnxprune.torch.registry import Node, op

Cell = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""From what the input contributes and the states, the new states; the first of them is the output."""

_FUNCTIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha, _: F.elu(x, alpha),
    "hardsigmoid": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1),
    "leakyrelu": lambda x, alpha, _: F.leaky_relu(x, alpha),
    "relu": lambda x, *_: torch.relu(x),
    "scaledtanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid": lambda x, *_: torch.sigmoid(x),
    "softplus": lambda x, *_: F.softplus(x),
    "softsign": lambda x, *_: F.softsign(x),
    "tanh": lambda x, *_: torch.tanh(x),
    "thresholdedrelu": lambda x, alpha, _: torch.where(x > alpha, x, torch.zeros_like(x)),
}


def _activations(node: Node, direction: int) -> list[Callable[[Tensor], Tensor]]:
    """The functions of one direction; those of gates and of the new state clip what they are given, that of the output does not.

    Raises:
        ModelError: the standard does not have them.
    """
    found = activations(node, 2 if node.attr("direction", "forward") == "bidirectional" else 1)
    if found is None:
        raise ModelError(f"the standard does not have its activations {node.attr('activations')}, or has another number of them")
    limits = (node.attr("clip"), node.attr("clip"), None)
    return [partial(_applied, one, limit) for one, limit in zip(found[direction], limits, strict=False)]


def _applied(activation: Activation, limit: float | None, x: Tensor) -> Tensor:
    given = x if limit is None else torch.clamp(x, -limit, limit)
    return _FUNCTIONS[activation.name](given, activation.alpha, activation.beta)


def _lstm(node: Node, direction: int, r: Tensor, bias: Tensor, peephole: Tensor | None) -> Cell:
    f, g, h = _activations(node, direction)
    pi, po, pf = (None,) * 3 if peephole is None else peephole.chunk(3)

    def cell(given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, memory = states
        i, o, u, c = (given + F.linear(hidden, r, bias)).chunk(4, -1)
        i = f(i if pi is None else i + pi * memory)
        u = 1 - i if node.attr("input_forget", 0) else f(u if pf is None else u + pf * memory)
        memory = u * memory + i * g(c)
        o = f(o if po is None else o + po * memory)
        return o * h(memory), memory

    return cell


def _gru(node: Node, direction: int, r: Tensor, bias: Tensor, _: Tensor | None) -> Cell:
    f, g = _activations(node, direction)
    width = r.shape[-1]
    gates, candidate = r[: 2 * width], r[2 * width :]
    gate_bias, own_bias = bias[: 2 * width], bias[2 * width :]
    after = bool(node.attr("linear_before_reset", 0))

    def cell(given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (hidden,) = states
        z, s = f(given[..., : 2 * width] + F.linear(hidden, gates, gate_bias)).chunk(2, -1)
        state = s * F.linear(hidden, candidate, own_bias) if after else F.linear(s * hidden, candidate, own_bias)
        return ((1 - z) * g(given[..., 2 * width :] + state) + z * hidden,)

    return cell


def _rnn(node: Node, direction: int, r: Tensor, bias: Tensor, _: Tensor | None) -> Cell:
    (f,) = _activations(node, direction)
    return lambda given, states: (f(given + F.linear(states[0], r, bias)),)


CELLS: dict[str, Callable[[Node, int, Tensor, Tensor, Tensor | None], Cell]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


@op("LSTM", "GRU", "RNN", weights=(1, 2, 3, 7), operands=(5, 6))
def recurrent(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    memory: Tensor | None = None,
    peephole: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Outputs [t, directions, b, h], then each final state [directions, b, h]; with ``layout=1`` the batch comes first."""
    batch_first = bool(node.attr("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        hidden, memory = (None if state is None else state.transpose(0, 1) for state in (hidden, memory))
    batch, width = x.shape[1], r.shape[-1]
    way, outputs, finals = node.attr("direction", "forward"), [], []
    for at in range(w.shape[0]):
        backwards = way == "reverse" or at == 1
        given, own = (None, None) if bias is None else bias[at].chunk(2)
        start = [state[at] if state is not None else x.new_zeros(batch, width) for state in (hidden, memory)]
        states = tuple(start if node.op == "LSTM" else start[:1])
        order = _order(x, lengths) if backwards else None
        line = x if order is None else x.gather(0, order.expand(x.shape))
        zero = x.new_zeros(r.shape[1]) if own is None else own
        cell = CELLS[node.op](node, at, r[at], zero, None if peephole is None else peephole[at])
        y, states = _unrolled(cell, F.linear(line, w[at], given), states, lengths)
        outputs.append(y if order is None else y.gather(0, order.expand(y.shape)))
        finals.append(states)
    y = torch.stack(outputs, 1)
    results = [y, *(torch.stack(states) for states in zip(*finals, strict=True))]
    if batch_first:
        results = [y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in results[1:])]
    return tuple(results)


def _order(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Positions in time that turn each sequence around within its length; the way back, too. [t, b, 1]"""
    steps = torch.arange(x.shape[0], device=x.device)[:, None].expand(x.shape[:2])
    ends = torch.full_like(steps[0], x.shape[0]) if lengths is None else lengths.to(steps)
    return torch.where(steps < ends, ends - 1 - steps, steps)[..., None]


def _unrolled(cell: Cell, given: Tensor, states: tuple[Tensor, ...], lengths: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    outputs = []
    for step, part in enumerate(given.unbind(0)):
        new = cell(part, states)
        if lengths is None:
            outputs.append(new[0])
        else:
            alive = (step < lengths)[:, None]
            new = tuple(torch.where(alive, now, old) for now, old in zip(new, states, strict=True))
            outputs.append(torch.where(alive, new[0], torch.zeros_like(new[0])))
        states = new
    return torch.stack(outputs), states
