"""Operators that move data: reshape, transpose, concatenate, cut, pad, repeat, pick."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import COMPUTED, NEVER, Refused, axes, rule
from onnxprune.ir.node import NodeView
from onnxprune.ir.types import Shape

_END = 2**31 - 1
"""Exporters write this, or more, for "to the end"."""
_COPIES = 8
"""As often a list of channels may name one; what names positions more often looks them up in a table."""


def _names(rank: int) -> list[str]:
    return [f"a{i}" for i in range(rank)]


@rule("Transpose")
def transpose(node: NodeView) -> AxisRule:
    names = _names(len(node.shape()))
    order = node.attr("perm") or list(reversed(range(len(names))))
    return axes(f"{' '.join(names)} -> {' '.join(names[i] for i in order)}")


@rule("Squeeze", "Unsqueeze")
def units(node: NodeView) -> AxisRule | Refused:
    """Unit axes come and go; the others pass in order."""
    shape, out = node.shape(), node.out()
    long, short = (shape, out) if node.op == "Squeeze" else (out, shape)
    chosen = node.ints("axes", 1)
    if chosen is None and node.has(1):
        return Refused("its axes are computed in the graph", remedy=COMPUTED)
    unit = {i % len(long) for i in chosen} if chosen else {i for i, size in enumerate(long) if size == 1}
    kept = iter(_names(len(short)))
    with_units = " ".join("1" if i in unit else next(kept) for i in range(len(long)))
    without = " ".join(_names(len(short)))
    if node.op == "Unsqueeze":
        return axes(f"{without} -> {with_units}")
    if not chosen:  # it would squeeze what pruning leaves one position of, too
        if node.opset >= 13 or any(node.is_dynamic(axis) for axis in range(len(shape))):
            return Refused("does not spell which axes it squeezes")
        return axes(f"{with_units} -> {without}", attrs={"axes": sorted(unit)})
    return axes(f"{with_units} -> {without}")


@rule("Reshape")
def reshape(node: NodeView) -> AxisRule | Refused:
    left, right, sizes = regroup(node.shape(), node.out())
    entries: list[str | None] = [None if axis in {"_", "1"} else axis for axis in right]
    spelled = node.const(1)
    if spelled is not None:  # 0 copies a size and -1 fills it in
        entries = [None if value in {0, -1} else entry for value, entry in zip(spelled, entries, strict=True)]
    return axes(f"{' '.join(left)} -> {' '.join(right)}", sizes_at={1: entries}, sizes=sizes)


@rule("Flatten")
def flatten(node: NodeView) -> AxisRule:
    shape, axis = node.shape(), int(node.attr("axis", 1))
    names = _names(len(shape))
    at = axis if axis >= 0 else axis + len(shape)
    return axes(f"{' '.join(names)} -> ({' '.join(names[:at])}) ({' '.join(names[at:])})")


def regroup(shape: Shape, out: Shape) -> tuple[list[str], list[str], dict[str, int]]:
    """Both shapes of a reshape as axes over common factors, and the sizes of those factors.

    Runs of axes with equal products correspond; inside a run the radices are aligned from the minor end, and where they do
    not align every axis of the run has an order of its own (``_``).
    """
    left, right = ["1"] * len(shape), ["1"] * len(out)
    sizes: dict[str, int] = {}
    for run_in, run_out in runs(shape, out):
        factors = _common_radices([shape[k] for k in run_in], [out[k] for k in run_out])
        for positions, axes_text, side in ((run_in, left, 0), (run_out, right, 1)):
            for at, k in enumerate(positions):
                if factors is None:
                    axes_text[k] = "_"
                    continue
                digits = [f"f{len(sizes) + n}" for n, (_, owners) in enumerate(factors) if owners[side] == at]
                axes_text[k] = digits[0] if len(digits) == 1 else f"({' '.join(digits)})" if digits else "1"
        sizes |= {f"f{len(sizes) + n}": size for n, (size, _) in enumerate(factors or [])}
    return left, right, sizes


def runs(shape: Shape, out: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of axes of the two sides of a reshape that have equal products, unit axes left out."""
    i = j = 0
    while i < len(shape) or j < len(out):
        run_in, run_out, i, j = _run(shape, out, i, j)
        yield run_in, run_out


def _run(shape: Shape, out: Shape, i: int, j: int) -> tuple[list[int], list[int], int, int]:
    """The next shortest runs of axes with equal products, unit axes left out."""
    run_in: list[int] = []
    run_out: list[int] = []
    product_in = product_out = 1
    while True:
        while i < len(shape) and shape[i] == 1:
            i += 1
        while j < len(out) and out[j] == 1:
            j += 1
        if run_in and product_in == product_out:
            break
        if product_in <= product_out and i < len(shape):
            product_in *= shape[i]
            run_in.append(i)
            i += 1
        elif j < len(out):
            product_out *= out[j]
            run_out.append(j)
            j += 1
        else:
            break
    return run_in, run_out, i, j


def _common_radices(a: list[int], b: list[int]) -> list[tuple[int, tuple[int, int]]] | None:
    """Radices, major first, that refine both lists, each with the positions it comes from; ``None`` if there are none."""
    if math.prod(a) != math.prod(b) or not math.prod(a):
        return None
    found: list[tuple[int, tuple[int, int]]] = []
    i, j, x, y = len(a) - 1, len(b) - 1, 1, 1
    while i >= 0 or j >= 0:
        x, y = (a[i] if x == 1 else x), (b[j] if y == 1 else y)
        common = min(x, y)
        if x % common or y % common:
            return None
        found.append((common, (i, j)))
        x, y = x // common, y // common
        i, j = i - (x == 1), j - (y == 1)
    return found[::-1]


@rule("Concat")
def concat(node: NodeView) -> AxisRule:
    count, axis = len(node.inputs), node.axis(1)
    names = _names(len(node.shape()))
    parts = [f"p{i}" for i in range(count)]
    tensors = [" ".join([*names[:axis], part, *names[axis + 1 :]]) for part in parts]
    whole = " ".join([*names[:axis], f"({'+'.join(parts)})", *names[axis + 1 :]])
    return axes(f"{', '.join(tensors)} -> {whole}")


@rule("Split")
def split(node: NodeView) -> AxisRule:
    axis = node.axis(0)
    names = _names(len(node.shape()))
    parts = [f"p{i}" for i in range(len(node.outputs))]
    tensors = [" ".join([*names[:axis], part, *names[axis + 1 :]]) for part in parts]
    whole = " ".join([*names[:axis], f"({'+'.join(parts)})", *names[axis + 1 :]])
    text = f"{whole} -> {', '.join(tensors)}"
    return axes(text, attrs={"split": parts}) if node.opset < 13 else axes(text, sizes_at={1: parts})


@rule("Slice")
def cut(node: NodeView) -> AxisRule | Refused:
    """``(p+q+r) -> q`` with starts = p and ends = p+q; ``(q s) -> q`` with a step s.

    A step that does not divide the axis, or begins behind the first one, has an order.
    """
    shape, out = node.shape(), node.out()
    starts, ends = node.ints("starts", 1), node.ints("ends", 2)
    if starts is None or ends is None or (node.has(3) and node.const(3) is None):
        return Refused("its limits are computed in the graph", remedy=COMPUTED)
    chosen = [axis % len(shape) for axis in node.ints("axes", 3) or range(len(starts))]
    steps = node.ints("steps", 4) or [1] * len(starts)
    left = _names(len(shape))
    sizes: dict[str, int] = {}
    right = list(left)
    first: list[str | None] = [None] * len(starts)
    last = list(first)
    whole: list[str] = []
    for entry, axis in enumerate(chosen):
        size, begin = shape[axis], min(max(starts[entry] + (starts[entry] < 0) * shape[axis], 0), shape[axis])
        if steps[entry] == 1 and out[axis] == size and (ends[entry] >= _END or node.is_dynamic(axis)):
            continue
        dynamic = node.is_dynamic(axis) or node.makes_dynamic(axis)
        p, q, r, s = (f"{letter}{axis}" for letter in "pqrs")
        if steps[entry] > 1 and 0 <= starts[entry] < steps[entry] and out[axis] * steps[entry] == size and not dynamic:
            # x[1::2] of [a b c d e f] is [b d f]: one of each run of two, which go together
            sizes |= {q: out[axis], s: steps[entry]}
            left[axis], right[axis] = f"({q} {s})", q
            last[entry] = None if ends[entry] >= size else f"({q} {s})"
            whole.append(s)
            continue
        if steps[entry] != 1 or dynamic:
            left[axis] = right[axis] = "_"
            continue
        sizes |= {p: begin, q: out[axis], r: size - begin - out[axis]}
        left[axis], right[axis] = f"({p}+{q}+{r})", q
        first[entry], last[entry] = p, f"({p}+{q})"
    text = f"{' '.join(left)} -> {' '.join(right)}"
    if node.opset < 10:
        return axes(text, attrs={"starts": _or_literal(first, starts), "ends": _or_literal(last, ends)}, sizes=sizes)
    return axes(text, sizes_at={1: first, 2: last}, sizes=sizes, fixed=" ".join(whole))


def _or_literal(entries: list[str | None], values: list[int]) -> list[str | int]:
    return [value if entry is None else entry for entry, value in zip(entries, values, strict=True)]


@rule("Pad")
def pad(node: NodeView) -> AxisRule | Refused:
    """``c -> (p+c+q)`` with constant padding; other modes give an order to the axes they pad."""
    rank = len(node.shape())
    pads = node.ints("pads", 1)
    if pads is None:
        return Refused("its padding is computed in the graph", remedy=COMPUTED)
    chosen = [axis % rank for axis in node.ints("axes", 3) or range(rank)]
    value = node.attr("value", node.const(2))
    left = _names(rank)
    sizes: dict[str, int] = {}
    right = list(left)
    entries: list[str | None] = [None] * len(pads)
    for entry, axis in enumerate(chosen):
        begin, end = pads[entry], pads[entry + len(chosen)]
        if not begin and not end:
            continue
        if begin < 0 or end < 0 or node.attr("mode", "constant") != "constant" or node.is_dynamic(axis):
            left[axis] = right[axis] = "_"
            continue
        p, q = f"p{axis}", f"q{axis}"
        sizes |= {p: begin, q: end}
        right[axis] = f"({p}+{left[axis]}+{q})"
        entries[entry], entries[entry + len(chosen)] = p, q
    text = f"{' '.join(left)} -> {' '.join(right)}"
    zero = None if value is None or not float(value) else NEVER
    if node.opset < 11:
        return axes(text, attrs={"pads": _or_literal(entries, pads)}, zero=zero, sizes=sizes)
    return axes(text, sizes_at={1: entries}, zero=zero, sizes=sizes)


@rule("Expand")
def expand(node: NodeView) -> AxisRule:
    shape, out = node.shape(), node.out()
    names = _names(len(out))
    skip = len(out) - len(shape)
    left = ["1" if size == 1 != full else name for name, size, full in zip(names[skip:], shape, out[skip:], strict=True)]
    spelled = node.const(1)
    entries: list[str | None] = list(names)
    if spelled is not None:  # it may be shorter than the result, and a 1 in it repeats nothing
        tail = names[len(names) - len(spelled) :]
        entries = [None if value == 1 else name for value, name in zip(spelled, tail, strict=True)]
    return axes(f"{' '.join(left)} -> {' '.join(names)}", sizes_at={1: entries}, zero=((0,),))


@rule("Tile")
def tile(node: NodeView) -> AxisRule:
    shape, out = node.shape(), node.out()
    names = _names(len(shape))
    repeats = {f"t{i}": full // size if size else 1 for i, (size, full) in enumerate(zip(shape, out, strict=True))}
    right = [name if repeats[f"t{i}"] == 1 else f"(t{i} {name})" for i, name in enumerate(names)]
    used = {name: size for name, size in repeats.items() if size != 1}
    return axes(f"{' '.join(names)} -> {' '.join(right)}", fixed=" ".join(used), sizes=used)


@rule("Gather")
def gather(node: NodeView) -> AxisRule:
    """``n c h w, _ -> n c@1 h w`` for a constant list of channels; else what is picked from stays, and the other axes pass."""
    axis = node.axis(0)
    names = _names(len(node.shape()))
    if _lists_channels(node, axis):
        picked, source = ["c@1"], "_" if node.detached else "c"
    else:
        picked, source = ["_"] * (len(node.out()) - len(names) + 1), "_"
    left = " ".join([*names[:axis], source, *names[axis + 1 :]])
    right = " ".join([*names[:axis], *picked, *names[axis + 1 :]])
    return axes(f"{left}, {' '.join('_' * len(node.shape(1)))} -> {right}", zero=((0,),))


def _lists_channels(node: NodeView, axis: int) -> bool:
    """Tell whether a node picks from an axis by a list, each position a few times at most; a table of embeddings is none."""
    listed = node.const(1)
    if listed is None or listed.ndim != 1 or listed.size < 2 or len(node.shape()) < 2 or node.is_dynamic(axis):
        return False
    return int(np.bincount(listed % node.shape()[axis]).max()) <= _COPIES


@rule("GatherElements", "Scatter", "ScatterElements")
def elements(node: NodeView) -> AxisRule:
    """Every element picks its position along one axis; the others correspond where they are whole."""
    axis, shape, picked = node.axis(0), node.shape(), node.shape(1)
    names = [f"a{i}" if i != axis and a == b else "_" for i, (a, b) in enumerate(zip(shape, picked, strict=True))]
    text = " ".join(names)
    return axes(f"{text}, {text}, {text} -> {text}" if node.op != "GatherElements" else f"{text}, {text} -> {text}")


@rule("GatherND")
def gather_nd(node: NodeView) -> AxisRule:
    """``b _ rest, b _... _ -> b _... rest``: indices name positions of some axes, the rest passes."""
    batch, depth = int(node.attr("batch_dims", 0)), node.shape(1)[-1]
    names = _names(len(node.shape()))
    outer, rest = names[:batch], names[batch + depth :]
    picked = ["_"] * (len(node.shape(1)) - 1 - batch)
    left = " ".join([*outer, *["_"] * depth, *rest])
    return axes(f"{left}, {' '.join([*outer, *picked, '_'])} -> {' '.join([*outer, *picked, *rest])}", zero=((0,),))


@rule("ScatterND")
def scatter_nd(node: NodeView) -> AxisRule:
    """``_ rest, _... _, _... rest -> _ rest``: indices name positions of some axes, the rest passes."""
    depth = node.shape(1)[-1]
    rest = _names(len(node.shape()))[depth:]
    picked = ["_"] * (len(node.shape(1)) - 1)
    data = " ".join([*["_"] * depth, *rest])
    return axes(f"{data}, {' '.join([*picked, '_'])}, {' '.join([*picked, *rest])} -> {data}", zero=((0,), (2,)))


@rule("Trilu")
def trilu(node: NodeView) -> AxisRule:
    return axes("... _ _ -> ... _ _")


@rule("OneHot")
def one_hot(node: NodeView) -> AxisRule:
    """The new axis has positions."""
    names = _names(len(node.shape()))
    axis = int(node.attr("axis", -1)) % (len(names) + 1)
    return axes(f"{' '.join(names)} -> {' '.join([*names[:axis], '_', *names[axis:]])}", zero=NEVER)


@rule("Col2Im")
def col2im(node: NodeView) -> AxisRule:
    """``n (c k) _ -> n c _...``: the kernel positions are the minor digit."""
    return axes("n (c k) _ -> n c _...", fixed="k")


@rule("ReverseSequence")
def reverse_sequence(node: NodeView) -> AxisRule:
    """Time and batch have an order; the other axes pass."""
    ordered = {node.axis(0, "time_axis"), node.axis(1, "batch_axis")}
    text = " ".join("_" if i in ordered else name for i, name in enumerate(_names(len(node.shape()))))
    return axes(f"{text}, _ -> {text}")


@rule("DepthToSpace")
def depth_to_space(node: NodeView) -> AxisRule:
    channels = "(c p q)" if node.attr("mode", "DCR") == "CRD" else "(p q c)"
    block = node.attr("blocksize")
    return axes(f"n {channels} h w -> n c (h p) (w q)", fixed="p q", sizes={"p": block, "q": block})


@rule("SpaceToDepth")
def space_to_depth(node: NodeView) -> AxisRule:
    block = node.attr("blocksize")
    return axes("n c (h p) (w q) -> n (p q c) h w", fixed="p q", sizes={"p": block, "q": block})
