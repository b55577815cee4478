"""The sizes that ``config.json`` and ``genai_config.json`` say of a model, after that was pruned."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import OnnxPruneError
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize

__all__ = ["resized"]

_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
_MLP = ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim", "d_ff", "n_inner")
_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads", "decoder_attention_heads")
_CACHED = ("num_key_value_heads", "num_kv_heads")
_HEAD_SIZE = ("head_dim", "head_size", "d_kv")
"""Keys by what they say; each family of networks has its own words."""


@dataclass(frozen=True, slots=True)
class _Width:
    """A coupling group: its kind, its size, and what is left of that."""

    kind: str
    before: int
    after: int


def resized(documents: Mapping[str, dict[str, Any]], before: Model, after: Model) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Configs with the sizes of a pruned model.

    Args:
        documents: configs of the original, by name.
        before: the original.
        after: what was made of it.

    Returns:
        Those that have to change; and a sentence for each size that they cannot say, as where layers have different widths.
    """
    if _same_shapes(before, after):
        return {}, []
    try:
        widths = _widths(before, after)
    except OnnxPruneError as error:
        return {}, [f"{', '.join(documents)}: sizes are those of the original: {error}"]
    if widths is None:
        told = "layers are gone, or cannot be matched with those of the original"
        return {}, [f"{', '.join(documents)}: sizes are those of the original: {told}"]
    changed, notes = {}, []
    for name, document in documents.items():
        new = copy.deepcopy(document)
        notes += [f"{name}: {text}" for part in _parts(new) for text in _resize(part, widths)]
        if new != document:
            changed[name] = new
    return changed, notes


def _same_shapes(before: Model, after: Model) -> bool:
    """Whether every matrix of the original is there with its shape."""
    wanted = {name: weight.shape for name, weight in before.weights.items() if len(weight.shape) > 1}
    return all(name in after.weights and after.weights[name].shape == shape for name, shape in wanted.items())


def _widths(before: Model, after: Model) -> list[_Width] | None:
    """Every group with what is left of it; ``None`` where the two models do not have the same ones, in order."""
    old, new = ([*Couple((), True).run(Normalize().run(model.copy())).coupling.groups] for model in (before, after))
    if [group.kind for group in old] != [group.kind for group in new]:
        return None
    return [_Width(one.kind, one.size, other.size) for one, other in zip(old, new, strict=True)]


def _parts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A config, and those in it, as of the encoder and the decoder."""
    yield document
    for value in document.values():
        if isinstance(value, dict):
            yield from _parts(value)


def _resize(part: dict[str, Any], widths: Collection[_Width]) -> Iterator[str]:
    """Change the sizes in a part of a config; gives a sentence for each that it cannot say."""
    old = {key: value for key, value in part.items() if isinstance(value, int) and not isinstance(value, bool)}
    heads = next((old[key] for key in _HEADS if key in old), 0)
    cached = next((old[key] for key in _CACHED if key in old), heads)
    hidden = next((old[key] for key in _HIDDEN if key in old), 0)
    for keys, kind in ((_HIDDEN, "residual"), (_MLP, "mlp"), (_HEAD_SIZE, "heads")):
        for key in keys:
            if key in old:
                yield from _set(part, key, old[key], _left(widths, kind, old[key]))
    if not heads or not cached or heads % cached:
        return
    each = _left(widths, "heads", cached)
    shared = _left(widths, "heads", heads // cached) if heads != cached else {1}
    if cached == heads // cached and each != {cached}:
        each = shared = set()  # which of the two it is cannot be told
    for key in (*_HEADS, *_CACHED):
        if key in old:
            factor = shared if key in _HEADS else {1}
            yield from _set(part, key, old[key], {one * other for one in each for other in factor})
    if not any(key in old for key in _HEAD_SIZE) and hidden:  # readers divide the hidden size by the heads
        implied = hidden // heads
        sizes = _left(widths, "heads", implied) if implied not in {cached, heads // cached} else {implied}
        if sizes != {implied} or each != {cached} or shared != {heads // cached}:
            yield from _set(part, "head_dim", implied, sizes)


def _left(widths: Collection[_Width], kind: str, size: int) -> set[int]:
    """What is left of the groups of a kind and size; they stay where there is none."""
    return {one.after for one in widths if (one.kind, one.before) == (kind, size)} or {size}


def _set(part: dict[str, Any], key: str, was: int, sizes: set[int]) -> Iterator[str]:
    """Write a size that all layers have."""
    if len(sizes) == 1:
        (part[key],) = sizes
    else:
        told = f"now {min(sizes)} to {max(sizes)}" if sizes else "changed"
        yield f"{key} stays {was}, which is {told}: one number cannot say the widths of all layers"
