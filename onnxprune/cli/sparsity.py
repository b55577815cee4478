"""The commands for sparse weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxprune.cli.app import app
from onnxprune.cli.options import Calib, Force, Json, Model, NoRepair, Out, Preprocess, Protect, Seed
from onnxprune.cli.output import progress, show
from onnxprune.errors import OptionError
from onnxprune.options.sparsify import ALLOCATIONS, METHODS, SparseRecipe

DEFAULT = SparseRecipe()


@app.command()
def sparsify(
    model: Model,
    output: Out,
    sparsity: Annotated[
        float | None, typer.Option(help="The share of zeros, as 0.8: short for --target sparsity=0.8.", metavar="S")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="sparsity=0.8; threshold=1.5 (standard deviations of each layer); size=2MB or size=0.3; gzip=1MB or gzip=0.3. "
            "auto: sparsity=0.5.",
            metavar="T",
        ),
    ] = DEFAULT.target,
    pattern: Annotated[
        str,
        typer.Option(
            help="Which weights may stay: unstructured; N:M of the channels that are summed over, as 2:4; blocks of outputs x "
            "channels, as 4x1; whole channels: channel; whole outputs: filter.",
            metavar="P",
        ),
    ] = DEFAULT.pattern,
    method: Annotated[
        str,
        typer.Option(
            help=f"How they are chosen: {', '.join(METHODS)}. auto: admm with --calib, else magnitude. Those from taylor on go "
            "by gradients and need PyTorch; snip, grasp and movement need labels, too."
        ),
    ] = DEFAULT.method,
    allocation: Annotated[
        str,
        typer.Option(help=f"How a sparsity is shared out: {', '.join(ALLOCATIONS)}. auto: sensitivity with --calib, else erk."),
    ] = DEFAULT.allocation,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="A sparsity of its own for layers of this name; may be repeated.", metavar="GLOB=S"),
    ] = None,
    protect: Protect = None,
    ends: Annotated[
        bool, typer.Option("--ends", help="Also layers that no other comes before or after: the first, the classifier.")
    ] = False,
    calib: Calib = DEFAULT.calib,
    preprocess: Preprocess = DEFAULT.preprocess,
    no_repair: NoRepair = False,
    no_permute: Annotated[bool, typer.Option("--no-permute", help="Under N:M, leave channels in their places.")] = False,
    encoding: Annotated[
        str,
        typer.Option(
            help="How weights with zeros are written: dense, auto for the smallest, or as `encode` has it.", metavar="E"
        ),
    ] = DEFAULT.encoding,
    no_compare: Annotated[bool, typer.Option("--no-compare", help="Do not compare outputs with the original's.")] = False,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write zeros into weights, and let the others make up for them: for smaller files, and for 2:4 hardware."""
    from onnxprune.cli import tables
    from onnxprune.driver.sparsify import sparsify as run
    from onnxprune.ir import files

    if sparsity is not None and target != DEFAULT.target:
        raise OptionError(f"--sparsity {sparsity:g} and --target {target}: give one of them")
    recipe = SparseRecipe(
        target=target if sparsity is None else f"sparsity={sparsity:g}",
        pattern=pattern,
        method=method,
        allocation=allocation,
        layers=tuple(layer or ()),
        protect=tuple(protect or ()),
        ends=ends,
        repair=not no_repair,
        permute=not no_permute,
        encoding=encoding,
        calib=calib,
        preprocess=preprocess,
        seed=seed,
    )
    out = files.check_output(output, inputs=(model,), force=force)
    with progress("reading", quiet=as_json) as tell:
        result = run(model, recipe, agreement=not no_compare, progress=tell)
        tell("writing")
        result.save(out, force=force)
    report = {**result.report.to_dict(), "output": str(out)}
    show(report, as_json, lambda: tables.sparse(result.report, str(out)))


@app.command()
def encode(
    model: Model,
    output: Out,
    encoding: Annotated[
        str, typer.Option(help="auto (the smallest for each weight), bitmask, delta, nm, coo or dense.", metavar="NAME")
    ] = "auto",
    mode: Annotated[str, typer.Option(help="smallest, or fast: what is quick to decode at load.", metavar="MODE")] = "smallest",
    keep_negative_zeros: Annotated[
        bool, typer.Option("--keep-negative-zeros", help="Store negative zeros, which masks leave behind, as they are.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also pack both files with gzip and zstd, and time them side by side.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Store sparse weights in few bytes, in a file that any runtime reads."""
    from onnxprune.cli import tables
    from onnxprune.driver import encode as storage
    from onnxprune.ir import files

    out = files.check_output(output, inputs=(model,), force=force)
    with progress("reading", quiet=as_json) as tell:
        result = storage.encode(model, encoding, mode=mode, negative_zeros=keep_negative_zeros, progress=tell)
        tell("writing")
        result.save(out, force=force)
        done = {**result.to_dict(), "output": str(out), "bytes": files.size_on_disk(out)}
        if measure:
            done |= _measured(model, out, tell)
    show({**done, **({"benchmark": done["benchmark"].to_dict()} if measure else {})}, as_json, lambda: tables.stored(done))


@app.command()
def decode(model: Model, output: Out, force: Force = False, as_json: Json = False) -> None:
    """Write the weights of an encoded model as they were, bit for bit."""
    from onnxprune.cli import tables
    from onnxprune.driver import encode as storage
    from onnxprune.ir import files

    out = files.check_output(output, inputs=(model,), force=force)
    with progress("decoding", quiet=as_json) as tell:
        result = storage.decode(model)
        tell("writing")
        result.save(out, force=force)
    done = {**result.to_dict(), "output": str(out), "bytes": files.size_on_disk(out)}
    show(done, as_json, lambda: tables.stored(done))


def _measured(model: Path, out: Path, tell: Any) -> dict[str, Any]:
    """Both files packed, and both in ONNX Runtime."""
    from onnxprune.ir import files
    from onnxprune.latency.benchmark import benchmark
    from onnxprune.sparse.encoding.accounting import compressed

    tell("packing with gzip and zstd")
    packed = {name: compressed(files.model_files(path)) for name, path in (("dense", model), ("output", out))}
    sizes = {kind: {name: packed[name][kind] for name in packed} for kind in packed["output"]}
    tell("measuring")
    timed = benchmark([model, out], labels=["original", "encoded"], seconds=1.0, memory=True)
    return {"compressed": sizes, "benchmark": timed}
