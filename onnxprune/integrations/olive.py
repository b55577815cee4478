"""Passes for Olive: prune, sparsify, quantize and optimize, with the options of the command line as parameters.

Olive is told of them by a package config, see `onnxprune.integrations.olive_config`. Samples come from a path, as on the command
line, or from a data config of Olive. What a pass found is a JSON file beside its model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from olive.common.config_utils import validate_config
from olive.common.utils import format_data
from olive.data.component.dataloader import LLMAugmentedDataLoader
from olive.data.config import DataConfig
from olive.model.utils import resolve_onnx_path
from olive.passes import Pass
from olive.passes.onnx.common import get_external_data_config, model_proto_to_olive_model
from olive.passes.pass_config import PassConfigParam

from onnxprune.driver.model_config import resized
from onnxprune.errors import OptionError
from onnxprune.ir.folders import CONFIGS, document
from onnxprune.ir.model import Model
from onnxprune.ir.outputs import replace_file
from onnxprune.ir.temporary import temporary_folder
from onnxprune.options.fields import Field, fields_of
from onnxprune.options.shared import NOISE
from onnxprune.pipeline.steps import STEPS, Given, StepInput, read

__all__ = ["OnnxPrune", "OnnxPruneOptimize", "OnnxPruneQuantize", "OnnxPruneSparsify"]

_SAMPLES = ("calib", "eval")
"""Options that name samples; each has a parameter for a data config of Olive, too."""
_log = logging.getLogger(__name__)


class _Step(Pass):  # type: ignore[misc]  # Olive is not installed where types are checked
    """A step of a recipe file as a pass.

    Attributes:
        step: which one, a key of `onnxprune.pipeline.steps.STEPS`.
    """

    step: ClassVar[str]

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, Any]:  # noqa: ARG003 - as Olive calls it
        options = {name: _parameter(field) for name, field in _fields(cls.step).items()}
        data = {_data_config(name): _data_parameter(name) for name in _SAMPLES}
        return {**options, **data, **get_external_data_config()}

    @classmethod
    def validate_config(cls, config: Any, accelerator_spec: Any) -> bool:
        """Whether the parameters make sense; says what does not before anything is computed."""
        try:
            _options(cls.step, config, {name: NOISE for name in _SAMPLES if getattr(config, _data_config(name))})
        except OptionError as error:
            _log.error("%s: %s", cls.__name__, error)
            return False
        return bool(super().validate_config(config, accelerator_spec))

    def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> Any:
        path, source = Path(resolve_onnx_path(output_model_path)), Path(model.model_path)
        with _sample_files(config, source, model.io_config) as found:
            options = _options(self.step, config, found)
            result, told = STEPS[self.step].run(StepInput(source, source, None, _log.info), options)
        assert result is not None  # noqa: S101 - these steps make models
        made = model_proto_to_olive_model(result.model, path, config)
        known = dict(model.model_attributes or {})
        files = known.get("additional_files") or ()
        written = {f"{type(self).__name__}.json": told, **_configs(files, source, result.compiled)}
        for name, content in written.items():
            with replace_file(path.with_name(name)) as file:
                file.write(json.dumps(content, indent=2, default=str).encode())
        kept = [one for one in files if Path(one).name not in written]
        made.model_attributes = {**known, "additional_files": sorted({*kept, *(str(path.with_name(name)) for name in written)})}
        return made


class OnnxPrune(_Step):
    """Removes channels, heads and hidden units, and proves that."""

    step = "prune"


class OnnxPruneSparsify(_Step):
    """Writes zeros into weights."""

    step = "sparsify"


class OnnxPruneQuantize(_Step):
    """Makes a model compute in int8; zeros stay zeros."""

    step = "quantize"


class OnnxPruneOptimize(_Step):
    """Mixes channels and int8 for the fastest model within a drop of its score, as measured where Olive runs."""

    step = "optimize"


def _fields(step: str) -> dict[str, Field]:
    """The options of a step by name; ``sparsity`` of `sparsify`, which only makes a target, is one, too."""
    return {field.name: field for kind in STEPS[step].options for field in fields_of(kind)}


def _parameter(field: Field) -> Any:
    kind: Any = list[str] if field.type is tuple else str | int | float if field.type is str else field.type
    default = list(field.default) if field.type is tuple else field.default
    return PassConfigParam(type_=kind, default_value=default, description=field.help())


def _configs(files: Iterable[str], source: Path, made: Model) -> dict[str, Any]:
    """The configs among the files that go with a model, where sizes in them change."""
    found = {path.name: document(path) for path in map(Path, files) if path.name in CONFIGS}
    changed, notes = resized(found, Model.of(source), made) if found else ({}, [])
    for note in notes:
        _log.warning("%s", note)
    return changed


def _data_config(name: str) -> str:
    return f"{name}_data_config" if name != "calib" else "data_config"


def _data_parameter(name: str) -> Any:
    return PassConfigParam(
        type_=DataConfig | dict, default_value=None, description=f"Samples from a data config of Olive, in place of {name}."
    )


def _options(step: str, config: Any, samples: Mapping[str, str]) -> Given:
    """The options of a step, from the parameters that say something else than the default.

    Raises:
        OptionError: a value that makes no sense, or a file that is not there.
    """
    fields = _fields(step)
    told = {name: getattr(config, name) for name in fields}
    given = {name: value for name, value in told.items() if value is not None and value != _default(fields[name])}
    for name in samples:
        if name in given:
            raise OptionError(f"{name} and {_data_config(name)} both name samples: leave one out")
    return read(step, {**given, **samples}, Path.cwd())


def _default(field: Field) -> Any:
    return list(field.default) if field.type is tuple else field.default


@contextmanager
def _sample_files(config: Any, model: Path, signature: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The samples of data configs as folders of .npz files, by the option that they stand for."""
    with temporary_folder() as place:
        found = {}
        for name in _SAMPLES:
            if given := getattr(config, _data_config(name)):
                folder = place / name
                folder.mkdir()
                _write_batches(validate_config(given, DataConfig), model, signature, folder)
                found[name] = str(folder)
        yield found


def _write_batches(data: Any, model: Path, signature: Mapping[str, Any], folder: Path) -> None:
    """Write each batch, with labels where there are any; models with a cache get an empty one."""
    loader = _by_name(data.to_data_container().create_dataloader(), signature["input_names"][0])
    for number, (fed, label) in enumerate(LLMAugmentedDataLoader(loader, str(model), signature)):
        arrays: dict[str, Any] = format_data(fed, signature)
        if label is not None:
            arrays["label"] = np.asarray(label)
        np.savez(folder / f"{number}.npz", **arrays)


def _by_name(batches: Any, name: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Batches with their labels; one that is a tensor is of the first input."""
    for batch in batches:
        fed, label = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, None)
        yield (dict(fed) if isinstance(fed, Mapping) else {name: fed}), label
