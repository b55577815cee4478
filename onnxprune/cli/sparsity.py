"""The commands for sparse weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import progress, show
from onnxprune.options.commands import Compares, Decode, Encode
from onnxprune.options.sparsify import EncodeRecipe, SparseRecipe


@command(app)
def sparsify(recipe: SparseRecipe, given: Compares) -> None:
    """Write zeros into weights, and let the others make up for them: for smaller files, and for 2:4 hardware."""
    from onnxprune.cli import tables
    from onnxprune.driver.sparsify import sparsify as run
    from onnxprune.ir import files

    out = files.check_output(given.output, inputs=(given.model,), force=given.force)
    with progress("reading", quiet=given.as_json) as tell:
        result = run(given.model, recipe, agreement=given.compare, progress=tell)
        tell("writing")
        result.save(out, force=given.force)
    report = {**result.report.to_dict(), "output": str(out)}
    show(report, given.as_json, lambda: tables.sparse(result.report, str(out)))


@command(app)
def encode(recipe: EncodeRecipe, given: Encode) -> None:
    """Store sparse weights in few bytes, in a file that any runtime reads."""
    from onnxprune.cli import tables
    from onnxprune.driver import encode as storage
    from onnxprune.ir import files

    out = files.check_output(given.output, inputs=(given.model,), force=given.force)
    with progress("reading", quiet=given.as_json) as tell:
        result = storage.encode(
            given.model,
            recipe.encoding,
            mode=recipe.mode,
            negative_zeros=recipe.keep_negative_zeros,
            kernels=recipe.kernels,
            require_proof=recipe.require_proof,
            shape=recipe.shape,
            progress=tell,
        )
        tell("writing")
        result.save(out, force=given.force)
        done = {**result.to_dict(), "output": str(out), "bytes": files.size_on_disk(out)}
        if given.measure:
            done |= _measured(given.model, out, tell, recipe.shape)
    report = {**done, **({"benchmark": done["benchmark"].to_dict()} if given.measure else {})}
    show(report, given.as_json, lambda: tables.stored(done, "encoded == original"))


@command(app)
def decode(given: Decode) -> None:
    """Write the weights of an encoded model as they were, bit for bit."""
    from onnxprune.cli import tables
    from onnxprune.driver import encode as storage
    from onnxprune.ir import files

    out = files.check_output(given.output, inputs=(given.model,), force=given.force)
    with progress("decoding", quiet=given.as_json) as tell:
        result = storage.decode(given.model, require_proof=given.require_proof, shape=given.shape)
        tell("writing")
        result.save(out, force=given.force)
    done = {**result.to_dict(), "output": str(out), "bytes": files.size_on_disk(out)}
    show(done, given.as_json, lambda: tables.stored(done, "decoded == original"))


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
