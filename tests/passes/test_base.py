"""What every pass keeps."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import pytest

from nets import NETS, parse
from onnxprune import passes
from onnxprune.errors import ModelError, PassError
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize, PruneChannels
from onnxprune.passes.base import Pass

PASSES = [getattr(passes, name) for name in passes.__all__]


@dataclass(frozen=True)
class Fails(Pass):
    """Fails as it is told."""

    ours: bool = False

    def run(self, model: Model) -> Model:
        raise ModelError("theirs") if self.ours else KeyError("lost")


@pytest.mark.parametrize("kind", PASSES)
def test_a_pass_is_a_frozen_dataclass_whose_options_are_documented(kind: type[Pass]) -> None:
    assert issubclass(kind, Pass)
    with pytest.raises(FrozenInstanceError):
        setattr(kind.__new__(kind), "option", 1)  # noqa: B010 - of any subclass
    assert "run" in vars(kind)
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}("), "the docstring is the one that dataclasses make"


def test_an_error_names_the_pass_and_its_options() -> None:
    model = Model.of(parse(NETS["residual"]))
    with pytest.raises(PassError, match=r"^Fails\(ours=False\) failed: KeyError: 'lost'$") as caught:
        Fails().run(model)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ModelError, match=r"^theirs$"):
        Fails(ours=True).run(model)


def test_an_error_of_a_real_pass() -> None:
    with pytest.raises(PassError, match=r"^PruneChannels\(\) failed: AttributeError: "):
        PruneChannels().run(Couple().run(Normalize().run(Model.of(parse(NETS["residual"])))), None)  # type: ignore[arg-type] # that is wrong


def test_a_pass_without_a_method_is_no_pass() -> None:
    with pytest.raises(KeyError, match="run"):
        type("Idle", (Pass,), {})
