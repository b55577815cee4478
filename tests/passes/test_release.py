"""Which inputs are released, and what is refused."""

from __future__ import annotations

import pytest

from nets import parse, with_defaults
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.passes import Release

NET = "(float[N,8] x) => (float[N,4] y) <float[8,16] w, float[16,4] v> { a = MatMul(x, w) y = MatMul(a, v) }"


def listed(*names: str, ir: int = 8) -> Model:
    model = with_defaults(parse(NET), *names)
    model.ir_version = ir
    return Model.of(model)


@pytest.mark.parametrize(("globs", "left"), [((), ["x"]), (("w",), ["x", "v"]), (("w", "v"), ["x"]), (("*",), ["x"])])
def test_inputs_are_released_by_name(globs: tuple[str, ...], left: list[str]) -> None:
    model = listed("w", "v")
    released = Release(globs).run(model)
    assert [value.name for value in released.graph.input] == left
    assert released.weights == model.weights
    assert model.overridable == {"w", "v"}


@pytest.mark.parametrize(
    ("model", "globs", "message"),
    [
        (listed(), (), "no input has a default: there is nothing to release"),
        (listed("w", "v", ir=3), (), "no input has a default"),
        (listed("w", "v"), ("w", "scale*"), r"no input with a default is called 'scale\*'; there are v, w"),
        (listed("w"), ("x",), "no input with a default is called 'x'; there are w"),
    ],
)
def test_nothing_to_release_is_refused(model: Model, globs: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Release(globs).run(model)
