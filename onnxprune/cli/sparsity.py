"""The commands for sparse weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import destination, progress, show, write
from onnxprune.options.commands import Compares, Decode, Encode, Writes
from onnxprune.options.gates import Gates
from onnxprune.options.sparsify import EncodeRecipe, SparseRecipe

if TYPE_CHECKING:
    from onnxprune.driver.encode import Stored


@command(app)
def sparsify(recipe: SparseRecipe, given: Compares) -> None:
    """Write zeros into weights, and let the others make up for them: for smaller files, and for 2:4 hardware."""
    from onnxprune.cli import phases, tables
    from onnxprune.cli.suggestions import Suggestions, keep_more
    from onnxprune.driver.progress import Phase
    from onnxprune.driver.sparsify import sparsify as run

    out = destination(given).file
    with progress("reading", quiet=given.as_json, phases=phases.sparsifying(recipe)) as tell:
        result = run(given.model, recipe, agreement=given.compare, progress=tell)
        tell(Phase("writing", phases.WRITING))
        write(result.compiled, given, result.to_dict())
    found = Suggestions(given.model, out, calib=recipe.calib, shape=recipe.shape)
    if not recipe.calib:
        found.samples(result.compiled)
    if recipe.encoding == "dense":
        found.add("encode", out, "-o", found.fresh("encoded"))
    nexts = found.finetune().quantize().benchmark().commands
    remedy = keep_more(recipe.calib, "a lower --sparsity", compared=given.compare)
    report = {**result.to_dict(), "output": str(out), "next": nexts}
    told = result.report
    show(report, given, lambda: tables.sparse(told, str(out), remedy=remedy, commands=nexts, every=given.every))


@command(app)
def encode(recipe: EncodeRecipe, given: Encode) -> None:
    """Store sparse weights in few bytes, in a file that any runtime reads."""
    from onnxprune.cli import tables
    from onnxprune.cli.suggestions import Suggestions
    from onnxprune.driver import encode as storage

    out = destination(given).file
    with progress("reading", quiet=given.as_json) as tell:
        result = storage.encode(
            given.model,
            recipe.encoding,
            mode=recipe.mode,
            negative_zeros=recipe.keep_negative_zeros,
            kernels=recipe.kernels,
            require_proof=recipe.require_proof,
            shape=recipe.shape,
            gates=recipe.gates,
            progress=tell,
        )
        tell("writing")
        write(result.compiled, given, result.to_dict())
        done = _stored(result, given, out)
        if given.measure:
            done |= _measured(given.model, out, tell, recipe.shape)
    nexts = Suggestions(given.model, out, shape=recipe.shape).benchmark().commands
    report = {**done, **({"benchmark": done["benchmark"].to_dict()} if given.measure else {}), "next": nexts}
    show(report, given, lambda: tables.stored(done, "encoded == original", commands=nexts, every=given.every))


@command(app)
def decode(gates: Gates, given: Decode) -> None:
    """Write the weights of an encoded model as they were, bit for bit."""
    from onnxprune.cli import tables
    from onnxprune.cli.suggestions import Suggestions
    from onnxprune.driver import encode as storage

    out = destination(given).file
    with progress("decoding", quiet=given.as_json) as tell:
        result = storage.decode(given.model, require_proof=given.require_proof, shape=given.shape, gates=gates)
        tell("writing")
        write(result.compiled, given, result.to_dict())
    done = _stored(result, given, out)
    nexts = Suggestions(given.model, out, shape=given.shape).benchmark().add("inspect", out).commands
    told = {**done, "next": nexts}
    show(told, given, lambda: tables.stored(done, "decoded == original", commands=nexts, every=given.every))


def _stored(result: Stored, given: Writes, out: Path) -> dict[str, Any]:
    """What was stored in another way, as plain data."""
    from onnxprune.ir import files

    sizes = {"before_bytes": files.size_on_disk(given.model), "bytes": files.size_on_disk(out)}
    return {**result.to_dict(), "source": str(given.model), "output": str(out), **sizes}


def _measured(model: Path, out: Path, tell: Any, shape: Sequence[str]) -> dict[str, Any]:
    """Both files packed, and both in ONNX Runtime."""
    from onnxprune.ir import files
    from onnxprune.latency.benchmark import benchmark
    from onnxprune.sparse.encoding.accounting import compressed

    tell("packing with gzip and zstd")
    packed = {name: compressed(files.model_files(path)) for name, path in (("dense", model), ("output", out))}
    sizes = {kind: {name: packed[name][kind] for name in packed} for kind in packed["output"]}
    tell("measuring")
    timed = benchmark([model, out], labels=["original", "encoded"], seconds=1.0, memory=True, shapes=shape)
    return {"compressed": sizes, "benchmark": timed}
