"""The commands for sparse weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxprune.cli.app import app
from onnxprune.cli.options import Force, Json, Model, Out
from onnxprune.cli.output import progress, show


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
    from onnxprune import files, storage, tables

    out = files.check_output(output, inputs=(model,), force=force)
    with progress("reading", quiet=as_json) as tell:
        result = storage.encode(model, encoding, mode=mode, negative_zeros=keep_negative_zeros, progress=tell)
        tell("writing")
        result.save(out, force=force)
        done = {**result.to_dict(), "output": str(out), "bytes": files.size(out)}
        if measure:
            done |= _measured(model, out, tell)
    show({**done, **({"benchmark": done["benchmark"].to_dict()} if measure else {})}, as_json, lambda: tables.stored(done))


@app.command()
def decode(model: Model, output: Out, force: Force = False, as_json: Json = False) -> None:
    """Write the weights of an encoded model as they were, bit for bit."""
    from onnxprune import files, storage, tables

    out = files.check_output(output, inputs=(model,), force=force)
    with progress("decoding", quiet=as_json) as tell:
        result = storage.decode(model)
        tell("writing")
        result.save(out, force=force)
    done = {**result.to_dict(), "output": str(out), "bytes": files.size(out)}
    show(done, as_json, lambda: tables.stored(done))


def _measured(model: Path, out: Path, tell: Any) -> dict[str, Any]:
    """Both files packed, and both in ONNX Runtime."""
    from onnxprune import files
    from onnxprune.bench import benchmark
    from onnxprune.sparse.accounting import compressed

    tell("packing with gzip and zstd")
    packed = {name: compressed(files.parts(path)) for name, path in (("dense", model), ("output", out))}
    sizes = {kind: {name: packed[name][kind] for name in packed} for kind in packed["output"]}
    tell("measuring")
    timed = benchmark([model, out], labels=["original", "encoded"], seconds=1.0, memory=True)
    return {"compressed": sizes, "benchmark": timed}
