"""Build the ONNX models: `build.py digits`, or `build.py resnet50 -o out.onnx --exporter torchscript`.

`digits` trains the small network and writes three exports of it beside this file, which are kept under version
control. The others are random networks of well-known shapes, built on demand. Every model has the input "image"
[batch, channels, height, width] and the output "logits", with a dynamic batch axis, and lies in one file.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnx
import onnx_ir.passes.common as passes
import onnxruntime as ort
import onnxscript.optimizer
import torch
from google.protobuf.message import Message
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import digits
from architectures import ARCHITECTURES, DigitsNet, Shape, random_images

Exporter = Literal["dynamo", "torchscript"]

_SEED = 0
_HERE = Path(__file__).resolve().parent
_DIGITS_SHAPE: Shape = (1, 8, 8)
_INPUT, _OUTPUT, _BATCH = "image", "logits", "batch"
# Dynamo builds opset 18 and converts to any other; TorchScript writes up to 20 itself, and 17 has long been common.
_OPSET: dict[Exporter, int] = {"dynamo": 18, "torchscript": 17}


# --- Training --------------------------------------------------------------------------------------------------------


def _shifted(images: Tensor, rng: torch.Generator) -> Tensor:
    """Each image of [n, 1, 8, 8] moved by -1, 0 or 1 pixels along both axes, filled with paper."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (1, 1, 1, 1))[:, 0]
    rows = torch.randint(0, 3, (count, 1), generator=rng) + torch.arange(height)
    columns = torch.randint(0, 3, (count, 1), generator=rng) + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def train_digits(data: digits.Digits, epochs: int = 60, batch: int = 64) -> DigitsNet:
    """DigitsNet fitted to the training split, in evaluation mode; deterministic for one version of torch.

    Weight decay applies to all weights, also to BatchNorm scales, as in the usual recipes. No penalty makes channels
    sparse: the scales of a layer end within a factor of two, so that pruning must find redundant channels by itself.
    """
    torch.manual_seed(_SEED)
    torch.use_deterministic_algorithms(True)
    rng = torch.Generator().manual_seed(_SEED)
    images, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    net = DigitsNet()
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=rng)
        for chosen in order[: len(order) // batch * batch].split(batch):
            loss = nn.functional.cross_entropy(net(_shifted(images[chosen], rng)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


# --- Export ----------------------------------------------------------------------------------------------------------


def export(net: nn.Module, shape: Shape, exporter: Exporter, keep_bn: bool, opset: int | None = None) -> onnx.ModelProto:
    """`net`, in evaluation mode, for images [batch, *shape], as a model that holds its weights itself.

    Both exporters fold each BatchNorm into the convolution before it, where there is one, unless `keep_bn`.
    """
    opset = _OPSET[exporter] if opset is None else opset
    # A batch of two: torch.export takes a dimension of one for a constant.
    images = torch.zeros(2, *shape)
    if exporter == "dynamo":
        model = _export_dynamo(net, images, keep_bn, opset)
    else:
        model = _export_torchscript(net, images, keep_bn, opset)
    strip_notes(model)
    return model


def _export_dynamo(net: nn.Module, images: Tensor, keep_bn: bool, opset: int) -> onnx.ModelProto:
    program = torch.onnx.export(
        net,
        (images,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim(_BATCH)},),
        input_names=[_INPUT],
        output_names=[_OUTPUT],
        opset_version=opset,
        optimize=not keep_bn,
        verbose=False,
    )
    assert program is not None
    if keep_bn:
        # The exporter's optimization has no option that keeps BatchNorm. These are the parts of it that keep it. Without
        # them, a file has shape arithmetic and sequences where it should have biases and a Split.
        onnxscript.optimizer.inline(program.model)
        onnxscript.optimizer.fold_constants_ir(program.model)
        passes.RemoveUnusedNodesPass()(program.model)
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(program.model)
        passes.DeduplicateInitializersPass()(program.model)
    return program.model_proto


def _export_torchscript(net: nn.Module, images: Tensor, keep_bn: bool, opset: int) -> onnx.ModelProto:
    mode = torch.onnx.TrainingMode.PRESERVE if keep_bn else torch.onnx.TrainingMode.EVAL
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter's own; that it is legacy is the point here
        torch.onnx.export(
            net,
            (images,),
            file,  # type: ignore[arg-type]  # the annotation omits the file objects that this exporter takes
            dynamo=False,
            dynamic_axes={_INPUT: {0: _BATCH}, _OUTPUT: {0: _BATCH}},
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            opset_version=opset,
            training=mode,
        )
    return onnx.load_model_from_string(file.getvalue())


def strip_notes(message: Message) -> None:
    """Clear every doc_string and metadata_props in the message: they hold stack traces, with paths of this machine."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                strip_notes(part)


def check(model: onnx.ModelProto, net: nn.Module, shape: Shape) -> float:
    """Check the model's form, and its outputs against `net`'s at two batch sizes.

    Returns the largest deviation, as a fraction of the largest output; raises if it is not below 1e-4.
    """
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    torch.manual_seed(_SEED)
    deviations = []
    for batch in (1, 3):
        images = random_images(batch, shape)
        with torch.no_grad():
            expected = net(images).numpy()
        (actual,) = cast("list[np.ndarray]", session.run([_OUTPUT], {_INPUT: images.numpy()}))
        if actual.shape != expected.shape:
            raise RuntimeError(f"the output's shape is {actual.shape}, torch's is {expected.shape}")
        deviations.append(np.abs(actual - expected).max() / np.abs(expected).max())
    worst = float(np.max(deviations))
    if not worst < 1e-4:  # written like this, NaN fails too
        raise RuntimeError(f"the outputs differ from torch's by {worst:.2g} of the largest")
    return worst


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the model to `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString(deterministic=True))
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are private
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


# --- Command line ----------------------------------------------------------------------------------------------------


def _build(net: nn.Module, shape: Shape, exporter: Exporter, keep_bn: bool, opset: int | None, path: Path) -> None:
    """Export, check, write and describe one model."""
    model = export(net, shape, exporter, keep_bn, opset)
    deviation = check(model, net, shape)
    save(model, path)
    histogram = ", ".join(f"{op} {n}" for op, n in Counter(node.op_type for node in model.graph.node).most_common())
    print(f"{path.name}: {path.stat().st_size:,} bytes, off torch by {deviation:.1e} of the largest output")
    print(f"    {histogram}")


def _describe(net: nn.Module, shape: Shape) -> str:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *shape))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return f"{parameters:,} parameters, {counter.get_total_flops() // 2:,} multiply-accumulates an image"


def _build_digits() -> None:
    data = digits.load()
    start = time.perf_counter()
    net = train_digits(data)
    with torch.no_grad():
        hits = net(torch.from_numpy(data.test_x)).argmax(1) == torch.from_numpy(data.test_y)
    print(f"digits: test accuracy {hits.float().mean():.4f} after {time.perf_counter() - start:.0f} s of training")
    print(f"digits: {_describe(net, _DIGITS_SHAPE)}")
    kinds: dict[str, tuple[Exporter, bool]] = {
        "digits": ("dynamo", False),
        "digits__ts": ("torchscript", False),
        "digits__bn": ("dynamo", True),
    }
    for name, (exporter, keep_bn) in kinds.items():
        path = _HERE / f"{name}.onnx"
        _build(net, _DIGITS_SHAPE, exporter, keep_bn, None, path)
        print(f"    test accuracy {digits.accuracy(path, data.test_x, data.test_y):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", nargs="?", choices=["digits", *ARCHITECTURES], help="the model to build")
    parser.add_argument("--list", action="store_true", help="list the models and quit")
    parser.add_argument("-o", "--output", type=Path, help="the file to write (default: build/NAME.onnx)")
    parser.add_argument("--exporter", choices=["dynamo", "torchscript"], help="torch's exporter (default: dynamo)")
    parser.add_argument("--keep-bn", action="store_true", help="do not fold BatchNormalization into convolutions")
    parser.add_argument("--opset", type=int, help="ONNX opset (default: dynamo 18, torchscript 17)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default: 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    if args.list:
        for name, (_, shape) in ARCHITECTURES.items():
            print(f"{name}: image {list(shape)}")
        print(f"digits: image {list(_DIGITS_SHAPE)}, trained, three files under version control")
    elif args.name is None:
        parser.error("name a model, or --list")
    elif args.name == "digits":
        if args.output or args.exporter or args.keep_bn or args.opset:
            parser.error("digits takes no options: its three exports are fixed")
        _build_digits()
    else:
        construct, shape = ARCHITECTURES[args.name]
        net = construct()
        print(f"{args.name}: {_describe(net, shape)}")
        path = args.output or Path("build") / f"{args.name}.onnx"
        _build(net, shape, args.exporter or "dynamo", args.keep_bn, args.opset, path)


if __name__ == "__main__":
    main()
