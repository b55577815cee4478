"""Integers: which layers compute in int8, and which stay in float32."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from onnxprune.data.samples import held_out
from onnxprune.driver.kernels import apart, gap_in_int8
from onnxprune.driver.layer_types import LayerTypes
from onnxprune.driver.levers.base import Ground, Lever, Made, Mixture, Step
from onnxprune.driver.levers.layers import Layer, layers_of, predicted, slower
from onnxprune.driver.levers.rounding import rounding_noise
from onnxprune.driver.proof import held
from onnxprune.driver.quantize import EXCLUDED, Quantizer
from onnxprune.errors import ModelError, TargetError
from onnxprune.options.quantize import QuantRecipe
from onnxprune.passes import Smooth
from onnxprune.runtime.int8_operators import LINEAR, operators
from onnxprune.runtime.session import first_line
from onnxprune.verify.law import unchanged

if TYPE_CHECKING:
    from onnxprune.driver.kernels import Apart
    from onnxprune.ir.model import Model
    from onnxprune.latency.node_times import NodeTime
    from onnxprune.verify.verdicts import Check

__all__ = ["Precision"]

_WHOLE = "int8"
_SLOW, _LOSES, _PROTECTED = "slower in int8, with its neighbours", "loses most in int8", "protected"
_SPARSE = "a sparse kernel computes it"
_PRODUCTS = f"{_WHOLE}, products alone"
_BETWEEN = "lies between products"
_PART, _IN_FLOATS = 4, 1.1
"""Of products alone in int8: the part of the layers that may stay in float32, too; and how much more time all take, about."""
_BOTH = "without sparse kernels ONNX Runtime may put these layers into int8 itself, since their neighbours are"
_RANGES = 128
"""Samples that ranges are measured on, about; evenly spread over all."""
_BATCH = 8
"""Samples at a time, of which every value that a product reads is in memory."""
_FEW = 8
"""Samples that the ranges of a draft are measured on, about."""
_OPEN = 2
"""Models that are ready to be quantised in yet another form at a time: each takes its own size on disk, three times."""


class Precision(Lever):
    """Layers compute in int8, by ONNX Runtime's quantizer, except those that are slower there or lose most.

    What each layer takes in both types is read from a profile of ONNX Runtime, with what conversions take at the borders of
    stretches; what it loses is the noise of its own rounding. Layers that are slower stay in float32 first, then those that lose
    most: one, two, four, ... until they are all. Where most layers are products of matrices, choices have these alone in int8, or
    most of them: sums along the residuals of transformers hold few large numbers, next to which int8 tells no others apart.
    """

    name: ClassVar[str] = "precision"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._quantizers: dict[Mixture, Quantizer] = {}
        self._smoothed: dict[Mixture, tuple[Made, Check | None]] = {}
        recipe = ground.recipe
        self._expected: dict[str, float] = {}
        self._noise: dict[str, float] = {}
        self._recipe = QuantRecipe(method=recipe.method, reduce_range=recipe.reduce_range)
        count = ground.samples.count or 0
        every = count // _RANGES
        self._samples = held_out(ground.samples, ground.original.inputs, every)[1] if every > 1 else ground.samples

    def choices(self) -> Sequence[str]:
        return tuple(self._ladder)

    def expected(self, choice: str) -> float:
        return self._expected.get(choice, 1.0)

    def noise(self, choice: str) -> float:
        return self._noise.get(choice, 0.0)

    def carry_out(self, made: Made, choice: str) -> Made:
        """Layers with sparse kernels stay in float32, too: the quantizer sees the dense ones that they stand for."""
        plain = apart(made.model)
        dense, check = self._smooth(Made(made.mixture, plain.model), choice)
        why = self._why(plain, choice)
        quantized = self._quantizer(dense).written(self._globs(dense, why))
        result = plain.fused(quantized.model)
        kept = tuple({**node, "why": self._reason(node, why)} for node in quantized.kept)
        notes = [f"ONNX Runtime: {text}" for text in quantized.warnings]
        if plain.chains:
            gap = gap_in_int8(result, plain.model, self._samples)
            notes.append(f"{_BOTH}; as the file says, outputs differ by {gap:.1e}")
        smooth = {} if check is None else {"smooth": dense.model}
        return made.then(Step(self.name, choice, {**smooth, "rounded": result}, check, kept, tuple(notes)))

    def draft(self, made: Made, choice: str) -> Made:
        """Rounded to the nearest, with ranges from a few samples."""
        plain = apart(made.model)
        dense = Made(made.mixture, plain.model)
        few = held_out(self._samples, made.model.inputs, max((self._samples.count or 0) // _FEW, 1))[1]
        with Quantizer(plain.model, self._recipe, few, self.ground.stages) as quantizer:
            quantized = quantizer.written(self._globs(dense, self._why(plain, choice)), refit=False)
        return made.then(Step(self.name, choice, {"rounded": plain.fused(quantized.model)}))

    def _smooth(self, made: Made, choice: str) -> tuple[Made, Check | None]:
        """Before products alone are rounded, what they read is made smooth, which is exact; with the proof."""
        if not choice.startswith(_PRODUCTS):
            return made, None
        if made.mixture not in self._smoothed:
            ground = self.ground
            with ground.stages("smoothing", "making what products read smooth"):
                model = Smooth().run(made.model, (batch.feeds for batch in self._samples.batches(_BATCH)))
            check = None
            if model is not made.model:
                check = held(unchanged(model, made.model, seed=ground.recipe.seed, rounded=True), made.model, "smooth")
            self._smoothed = {made.mixture: (Made(made.mixture.having(self.name, _PRODUCTS), model), check)}
        return self._smoothed[made.mixture]

    def _why(self, plain: Apart, choice: str) -> dict[str, str]:
        """What stays in float32, with the reason."""
        sparse = (name for chain in plain.chains.values() for name in chain)
        return self._ladder[choice] | dict.fromkeys(sparse, _SPARSE)

    def _globs(self, made: Made, why: Mapping[str, str]) -> list[str]:
        nodes = {name for node in made.model.graph.node for name in (node.name, node.op_type)} | made.model.weights.keys()
        return [*(_literally(name) for name in why if name in nodes), *self._protected(made)]

    def _protected(self, made: Made) -> list[str]:
        """The globs of what stays as it is, as far as they name anything here."""
        names = {name for node in made.model.graph.node for name in (node.name, *node.input)}
        return [glob for glob in self.ground.recipe.protect if any(fnmatchcase(name, glob) for name in names)]

    def _quantizer(self, made: Made) -> Quantizer:
        """What quantises a model: prepared, with its ranges; the latest ones are kept."""
        found = self._quantizers.pop(made.mixture, None)
        if found is None:
            found = Quantizer(made.model, self._recipe, self._samples, self.ground.stages)
            found.__enter__()
            self.ground.stack.callback(found.__exit__)
        self._quantizers[made.mixture] = found
        while len(self._quantizers) > _OPEN:
            self._quantizers.pop(next(iter(self._quantizers))).__exit__()
        return found

    @cached_property
    def _ladder(self) -> dict[str, dict[str, str]]:
        """For each choice what stays in float32: names of nodes or weights, with the reason."""
        ground = self.ground
        made = Made(Mixture(), ground.original)
        try:
            whole = self._quantizer(made).form(self._protected(made), refit=False)
        except (ModelError, TargetError) as error:
            self.notes.append(str(error))
            return {}
        layers = layers_of(ground.original)
        with ground.stages("layers", "timing layers in float32 and int8"):
            timed = [] if ground.recipe.by_size else [ground.original, whole.model]
            times = [ground.times(model) for model in timed]
            slow = self._slower(layers, times)
        with ground.stages("layers", "measuring what each layer loses in int8"):
            noise = self._noises(layers, whole.model, made)
        noisy = [layer for layer in sorted(noise, key=lambda layer: -noise[layer]) if layer not in slow]
        ladder: dict[str, dict[str, str]] = {_WHOLE: {}}
        self._expect(_WHOLE, layers, times, [])
        self._noise[_WHOLE] = sum(noise.values())
        count = 0
        while not count or len(slow) + count < len(layers):
            stay = [*((layer, _SLOW) for layer in slow), *((layer, _LOSES) for layer in noisy[:count])]
            if stay:
                choice = f"{_WHOLE}, {len(stay)} of {len(layers)} layers in float32"
                ladder[choice] = {name: why for layer, why in stay for name in layer.nodes}
                self._expect(choice, layers, times, [layer.name for layer, _ in stay])
                self._noise[choice] = sum(noise.values()) - sum(noise.get(layer, 0.0) for layer, _ in stay)
            if count >= len(noisy):
                break
            count = count * 2 or 1
        for choice, names in self._products(layers, noisy).items():
            ladder[choice] = names
            floats = [layer.name for layer in layers if not names.keys().isdisjoint(layer.nodes[:1])]
            self._expect(choice, layers, times, floats, _IN_FLOATS)
        ground.types.update({choice: LayerTypes(int8=True, floats=stay.keys()) for choice, stay in ladder.items()})
        return ladder

    def _products(self, layers: Sequence[Layer], noisy: Sequence[Layer]) -> dict[str, dict[str, str]]:
        """The choices of products alone, where most layers are such: what lies between stays by operator, and what loses most."""
        graph = self.ground.original.graph
        if 2 * sum(node.op_type in {"MatMul", "Gemm"} for node in graph.node) < len(layers):
            return {}
        between = dict.fromkeys(sorted({"Mul", *(node.op_type for node in graph.node)} & operators() - LINEAR), _BETWEEN)
        found = {_PRODUCTS: between} if between else {}
        count = 1
        while between and count <= max(len(noisy) // _PART, 1):
            stay = {name: _LOSES for layer in noisy[:count] for name in layer.nodes}
            found[f"{_PRODUCTS}, {count} of {len(layers)} layers in float32"] = between | stay
            count *= 2
        return found

    @staticmethod
    def _slower(layers: Sequence[Layer], times: Sequence[Sequence[NodeTime]]) -> list[Layer]:
        """The layers that are slower in int8, in their stretches; none where size is the goal, or all would be."""
        found = slower(layers, times[0], times[1]) if times else []
        return found if len(found) < len(layers) else []

    def _expect(
        self,
        choice: str,
        layers: Sequence[Layer],
        times: Sequence[Sequence[NodeTime]],
        floats: Collection[str],
        more: float = 1.0,
    ) -> None:
        """Keep what the times of layers, in floating point and in int8, predict for a choice, times something."""
        if times:
            self._expected[choice] = more * predicted(layers, times[0], times[1], floats)

    def _noises(self, layers: Sequence[Layer], rounded: Model, made: Made) -> dict[Layer, float]:
        """What each layer loses; nothing if that cannot be measured."""
        names = {name: layer for layer in layers for name in layer.nodes[:1]}
        try:
            noise = rounding_noise(self._quantizer(made).prepared, rounded, list(names), self._samples)
        except Exception as error:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
            self.notes.append(f"what each layer loses in int8 was not measured: {first_line(error)}")
            return {}
        return {names[name]: lost for name, lost in noise.items()}

    @staticmethod
    def _reason(node: Mapping[str, str], stays: Mapping[str, str]) -> str:
        """Why a node stays in floating point."""
        return stays.get(node["node"]) or stays.get(node["op"], _PROTECTED) if node["why"] == EXCLUDED else node["why"]


def _literally(name: str) -> str:
    """A glob that names nothing else."""
    return "".join(f"[{letter}]" if letter in "[*?" else letter for letter in name)
