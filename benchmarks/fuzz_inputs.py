"""The inputs of the campaign: good files for each model, made by the commands themselves, and copies with one of them broken."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from fuzz_models import outside, seeds
from fuzz_mutations import FLOATS, INTEGERS, mutated_bytes, mutated_data, mutated_json, mutated_model, mutated_toml
from fuzz_workers import command, forked

__all__ = ["KINDS", "Case", "Inputs", "Kind"]

Command = tuple[str, ...]
OUT = ("-o", "o.onnx")
CUT = ("--target", "channels=0.5", "--align", "1", "--no-benchmark")
TRAIN = ("--epochs", "1", "--batch", "8")
RECIPE = """
model = "m.onnx"
output = "o.onnx"
eval = "l.npz"
[prune]
target = "channels=0.5"
align = "1"
calib = "s.npz"
seed = 3
repair = true
[sparsify]
sparsity = 0.5
ends = true
protect = ["a", "b*"]
layer = ["[cw]=0.5"]
[encode]
encoding = "auto"
"""


@dataclass(frozen=True)
class Case:
    """One broken input.

    Attributes:
        kind: of `KINDS`.
        seed: the name of the model that it starts from.
        choices: a seed for each mutation.
    """

    kind: str
    seed: str
    choices: tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        weight: how often it is drawn.
        count: how many of the commands a case is given to.
        commands: which read it.
        broken: changes files in the working directory, by a seed for each change.
        seeds: models that it is for; all if there are none.
        needs: a command that makes the good file, if it is not there from the start.
        settings: variables of the environment of its commands.
    """

    weight: int
    count: int
    commands: tuple[Command, ...]
    broken: Callable[[list[int]], None]
    seeds: tuple[str, ...] = ()
    needs: Command = ()
    settings: tuple[tuple[str, str], ...] = ()


def _model(choices: list[int]) -> None:
    model = mutated_model(onnx.load("m.onnx", load_external_data=False), choices)
    Path("m.onnx").write_bytes(model.SerializeToString())


def _external(choices: list[int]) -> None:
    model = onnx.load("m.onnx")
    Path("w.bin").write_bytes(outside(model))
    Path("m.onnx").write_bytes(model.SerializeToString())
    draw = random.Random(choices[0])
    if draw.random() < 0.8:
        _model(choices)
    elif draw.random() < 0.5:
        _bytes("w.bin")(choices)
    else:
        _odd_file(Path("w.bin"), draw)


def _bytes(name: str) -> Callable[[list[int]], None]:
    return lambda choices: _rewrite(Path(name), lambda data: mutated_bytes(data, choices))


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _odd_file(path: Path, draw: random.Random) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    kind = draw.choice(("none", "folder", "loop", "empty", "text"))
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind != "none":
        path.write_bytes(b"" if kind == "empty" else b"a, b\n1, 2\n" * draw.choice((1, 999)))


def _json(name: str) -> Callable[[list[int]], None]:
    def change(choices: list[int]) -> None:
        draw = random.Random(choices[0])
        if draw.random() < 0.75:
            _rewrite(Path(name), lambda data: mutated_json(data.decode(), choices).encode("utf-8", "surrogatepass"))
        elif draw.random() < 0.3:
            deep = draw.choice((b"[", b'{"groups":', b"9", b'"')) * draw.choice((99, 5000, 10**6))
            _rewrite(Path(name), lambda data: data[: draw.randrange(len(data))] + deep)
        else:
            _bytes(name)(choices)

    return change


def _recipe(choices: list[int]) -> None:
    _rewrite(Path("r.toml"), lambda data: mutated_toml(data.decode(), choices).encode("utf-8", "surrogatepass"))


def _samples(choices: list[int]) -> None:
    _arrays("s.npz", choices)
    if random.Random(choices[0]).random() < 0.3:
        with np.load("s.npz", allow_pickle=True) as arrays, Path("s.npy").open("wb") as file:
            np.save(file, next(iter(arrays.values())))


def _labels(choices: list[int]) -> None:
    _arrays("l.npz", choices, ("label",))


def _arrays(name: str, choices: list[int], only: tuple[str, ...] = ()) -> None:
    """Break an .npz: its arrays, or its bytes."""
    path, draw = Path(name), random.Random(choices[0])
    if draw.random() < 0.2:
        _bytes(name)(choices)
        return
    if draw.random() < 0.05:
        _odd_file(path, draw)
        return
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    for choice in choices:
        draw = random.Random(choice)
        key = draw.choice([one for one in arrays if not only or one in only] or ["x"])
        if draw.random() < 0.1:
            arrays[draw.choice(("", "y", "label", "a/b", "../x", "\x1b[31m", "x" * 99))] = arrays.pop(key, np.zeros(3))
        else:
            arrays[key] = _other_array(np.asarray(arrays.get(key, 0)), draw)
    np.savez(path, **arrays)


def _other_array(array: Any, draw: random.Random) -> Any:
    """The array with another type, shape or value."""
    action = draw.choice(("type", "shape", "value", "value", "fill", "object"))
    if action == "type":
        kind = draw.choice(("i1", "u1", "i8", "u8", "f2", "f8", "c8", "?", "U5", "S3", "M8[s]", ">f4", "V8", "i4,f4"))
        with contextlib.suppress(ValueError, TypeError):
            return array.astype(kind)
        return np.zeros(array.shape, kind)
    if action == "shape":
        short = [size for size in array.shape if draw.random() < 0.8] or [0]
        short[draw.randrange(len(short))] = draw.choice((0, 1, 2, 7, 30))
        return np.resize(array, short) if array.size else np.zeros(short, np.float32)
    if action == "object":
        return np.array([{"a": 1}, None], object)
    if action == "fill" or not array.size or array.dtype.kind not in "fiu":
        return np.full_like(array, draw.choice((0, 1, -1)) if array.dtype.kind in "fi" else 0)
    array = array.copy()
    value = draw.choice(FLOATS if array.dtype.kind == "f" else INTEGERS)
    array.reshape(-1)[draw.randrange(array.size)] = (
        value if array.dtype.kind == "f" else int(value) % 2**31 * draw.choice((1, -1))
    )
    return array


def _pictures(choices: list[int]) -> None:
    """Break a folder of images: one of them, their classes, or links."""
    for choice in choices:
        draw, folder = random.Random(choice), Path("pictures")
        images = sorted(path for path in folder.rglob("*.png") if path.is_file())
        action = draw.choice(("bytes", "bytes", "odd", "flat", "links", "mixed", "size", "name"))
        one = draw.choice(images)
        if action == "bytes":
            _bytes(str(one))([choice])
        elif action == "odd":
            _odd_file(one, draw)
        elif action == "flat":
            for path in images:
                path.rename(folder / f"{path.parent.name}{path.name}")
        elif action == "links":
            for name in ("l0", "l1", "l2"):
                one.with_name(name).symlink_to(draw.choice((".", "..", "l1", "none")))
        elif action == "mixed":
            shutil.copy("s.npz", folder / "s.npz")
        elif action == "size":
            one.write_bytes(_png(draw.choice(((1, 1), (900, 3), (3, 5))), draw.choice(("L", "RGBA", "1", "I;16", "P"))))
        else:
            one.rename(one.with_name(draw.choice(("\x1b[31m.png", "é.png", ".png", "a.jpg", "x.gif", "0.PNG"))))


def _png(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    (image if mode == "RGB" else Image.new(mode, size) if mode == "I;16" else image.convert(mode)).save(file, "png")
    return file.getvalue()


def _checkpoint(choices: list[int]) -> None:
    import torch

    path, draw = Path("c.ckpt"), random.Random(choices[0])
    if draw.random() < 0.3:
        _bytes("c.ckpt")(choices)
        return
    content = torch.load(path, map_location="cpu", weights_only=True)
    with path.open("wb") as file:
        torch.save(mutated_data(content, choices), file)


def _cache(choices: list[int]) -> None:
    path = Path("cache/onnxprune/latency.sqlite")
    for choice in choices:
        draw = random.Random(choice)
        if draw.random() < 0.3:
            _bytes(str(path))([choice])
            continue
        value = draw.choice((*FLOATS, *INTEGERS[:12], None, "x", b"\0", -5.0, 1e-9, 1e9))
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as base, base:
            action = draw.choice(
                ("UPDATE times SET ms = ?", "UPDATE times SET ms = ? WHERE abs(random()) % 3 = 0", "DROP TABLE times")
            )
            if draw.random() < 0.1:
                base.execute("ALTER TABLE times RENAME TO old")
                base.execute("CREATE VIEW times AS SELECT * FROM old")
            base.execute(action, [value] if "?" in action else [])


def _kept(choices: list[int]) -> None:
    """Break what `run --keep` kept."""
    draw = random.Random(choices[0])
    path = draw.choice(sorted(Path("keep").iterdir()))
    if draw.random() < 0.2:
        _odd_file(path, draw)
    elif path.suffix == ".json":
        _json(str(path))(choices)
    else:
        _bytes(str(path))(choices)


_PRUNE = ("prune", "m.onnx", *OUT, *CUT)
_QUICK: tuple[Command, ...] = (
    ("inspect", "m.onnx"),
    (*_PRUNE, "--plan-out", "o.json"),
    ("encode", "m.onnx", *OUT),
    ("decode", "m.onnx", *OUT),
    ("sparsify", "m.onnx", *OUT, "--sparsity", "0.5", "--method", "magnitude", "--ends"),
    ("prune", "m.onnx", *OUT, "--lossless", "--no-benchmark"),
    ("plan", "m.onnx", "-o", "o.json", "--target", "macs=0.7", "--align", "1"),
    ("apply", "m.onnx", "p.json", *OUT),
    ("verify", "m.onnx", "pruned.onnx", "--plan", "p.json"),
)
_WITH_SAMPLES: tuple[Command, ...] = (
    (*_PRUNE, "--calib", "s.npz", "--plan-out", "o.json"),
    ("sparsify", "m.onnx", *OUT, "--sparsity", "0.5", "--calib", "s.npz", "--ends", "--encoding", "auto"),
    ("quantize", "m.onnx", *OUT, "--calib", "s.npz"),
    ("sensitivity", "m.onnx", "--calib", "s.npz"),
    ("finetune", "m.onnx", *OUT, "--data", "s.npz", "--teacher", "m.onnx", *TRAIN),
    ("train", "m.onnx", *OUT, "--data", "s.npz", *TRAIN, "--sparsity", "0.5"),
)
_LABELLED: tuple[Command, ...] = (
    ("quantize", "m.onnx", *OUT, "--calib", "s.npz", "--eval", "l.npz"),
    ("prune", "m.onnx", *OUT, "--calib", "s.npz", "--eval", "l.npz", "--max-drop", "30%", "--align", "1", "--no-benchmark"),
    ("finetune", "m.onnx", *OUT, "--data", "l.npz", "--loss", "cross_entropy", *TRAIN),
    ("finetune", "m.onnx", *OUT, "--data", "s.npz", "--eval", "l.npz", "--teacher", "m.onnx", *TRAIN),
    (*_PRUNE, "--calib", "l.npz", "--criterion", "snip"),
)
_PICTURED: tuple[Command, ...] = (
    ("quantize", "m.onnx", *OUT, "--calib", "pictures", "--preprocess", "unit"),
    (*_PRUNE, "--calib", "pictures"),
    ("finetune", "m.onnx", *OUT, "--data", "pictures", "--teacher", "m.onnx", *TRAIN),
)
_RESUMED = ("finetune", "m.onnx", *OUT, "--data", "s.npz", "--teacher", "m.onnx", *TRAIN, "--resume", "c.ckpt")
_TIMED = ("prune", "m.onnx", *OUT, "--target", "latency=0.9", "--align", "1", "--no-benchmark")
_APPLIED: tuple[Command, ...] = (
    ("apply", "m.onnx", "p.json", *OUT),
    ("apply", "m.onnx", "p.json", "--masked", *OUT),
    ("verify", "m.onnx", "pruned.onnx", "--plan", "p.json"),
)
_CLASSIFIERS = ("residual", "mlp")

KINDS = {
    "model": Kind(24, 2, (*_QUICK, *_QUICK[:6], *_WITH_SAMPLES[:4]), _model),
    "trained": Kind(2, 1, _WITH_SAMPLES[4:], _model),
    "bytes": Kind(4, 2, (*_QUICK, *_WITH_SAMPLES[:4]), _bytes("m.onnx")),
    "external": Kind(5, 2, (*_QUICK, *_WITH_SAMPLES[:4]), _external),
    "plan": Kind(4, 1, _APPLIED, _json("p.json")),
    "recipe": Kind(3, 1, (("run", "r.toml"), ("run", "r.toml", "--dry-run")), _recipe, _CLASSIFIERS),
    "samples": Kind(4, 1, (*_WITH_SAMPLES, *((*one[:-1], "s.npy") for one in _WITH_SAMPLES[3:4])), _samples),
    "labels": Kind(3, 1, _LABELLED, _labels, _CLASSIFIERS),
    "pictures": Kind(2, 1, _PICTURED, _pictures, ("conv", "resize")),
    "checkpoint": Kind(2, 1, (_RESUMED,), _checkpoint, ("mlp", "conv"), _RESUMED),
    "cache": Kind(1, 1, (_TIMED,), _cache, ("mlp", "conv"), _TIMED, (("XDG_CACHE_HOME", "cache"),)),
    "kept": Kind(2, 1, (("run", "r.toml", "--keep", "keep"),), _kept, _CLASSIFIERS, ("run", "r.toml", "--keep", "keep")),
}


class Inputs:
    """Good files, made when they are first needed, and broken copies of them.

    Args:
        home: a folder for the good files.
    """

    def __init__(self, home: Path) -> None:
        self._home, self.models = home, seeds()

    def write(self, case: Case) -> bool:
        """Write the files of a case into the working directory; false where the change gives no file."""
        shutil.copytree(self._good(case), Path(), dirs_exist_ok=True, symlinks=True)
        return not forked(lambda: KINDS[case.kind].broken(list(case.choices))).status  # the change may crash protobuf, too

    def _good(self, case: Case) -> Path:
        kind = KINDS[case.kind]
        folder = self._home / case.seed / (case.kind if kind.needs else "plain")
        if not folder.exists():
            folder.mkdir(parents=True)
            with contextlib.chdir(folder):
                forked(lambda: _write_good(self.models[case.seed]))
                outcome = command(kind.needs or _QUICK[6], dict(kind.settings))
                Path("o.onnx").unlink(missing_ok=True)
                if kind.needs:
                    if outcome.status not in {0, 1}:
                        raise RuntimeError(f"{case}: {outcome.err}")
                elif Path("o.json").exists():
                    Path("o.json").rename("p.json")
                    command(("apply", "m.onnx", "p.json", "-o", "pruned.onnx"))
        return folder


def _write_good(model: ModelProto) -> None:
    """Write a model, samples, labels, images, a recipe and a plan that cuts nothing into the working directory."""
    onnx.save(model, "m.onnx")
    (given,) = model.graph.input
    sizes = [dim.dim_value or 8 for dim in given.type.tensor_type.shape.dim]
    sizes[0] = 8 if given.type.tensor_type.shape.dim[0].dim_param == "t" else 24
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(sizes).astype(np.float32)
    np.savez("s.npz", x=samples)
    np.savez("l.npz", x=samples, label=rng.integers(0, 3, sizes[0]))
    np.save("s.npy", samples)
    Path("r.toml").write_text(RECIPE, "utf-8")
    Path("p.json").write_text(json.dumps({"groups": []}), "utf-8")
    if len(sizes) == 4 and sizes[1] == 3:
        for number in range(16):
            folder = Path("pictures", f"class{number % 4}")
            folder.mkdir(parents=True, exist_ok=True)
            Path(folder, f"{number}.png").write_bytes(_png((sizes[3], sizes[2]), seed=number))
    Path("tmp").mkdir()
