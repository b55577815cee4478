"""Losses by their definitions, on shapes of classifiers, segmentation and language models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onnxprune import OptionError
from onnxprune.torch import losses, to_module
from onnxprune.torch.losses import Objective
from trainable import graph

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "axis"), [((6, 4), 1), ((3, 5, 4), 2), ((2, 4, 3, 3), 1)])
def test_distillation_is_the_divergence_of_distributions(shape: tuple[int, ...], axis: int) -> None:
    student, teacher = draw(*shape), draw(*shape, seed=1)
    p, q = torch.softmax(teacher / 3, axis), torch.softmax(student / 3, axis)
    expected = 9 * (p * (p.log() - q.log())).sum(axis).mean()
    assert losses.distill([student], [teacher], None, 3.0) == pytest.approx(float(expected), rel=1e-5)
    assert losses.distill([teacher], [teacher + 7], None) == pytest.approx(0, abs=1e-6)


def test_cross_entropy_finds_the_classes() -> None:
    labels = torch.tensor([0, 3, 1])
    scores = draw(3, 4)
    expected = torch.nn.functional.cross_entropy(scores, labels)
    assert losses.cross_entropy([scores], None, labels) == expected
    assert losses.cross_entropy([scores], None, labels[:, None]) == expected
    image, places = draw(2, 4, 3, 3), torch.randint(4, (2, 3, 3))
    assert losses.cross_entropy([image], None, places) == torch.nn.functional.cross_entropy(image, places)
    text, words = draw(2, 5, 4), torch.randint(4, (2, 5))
    expected = torch.nn.functional.cross_entropy(text.reshape(-1, 4), words.reshape(-1))
    assert losses.cross_entropy([text], None, words) == expected
    with pytest.raises(OptionError, match=r"labels \[3\] of torch.int64 are not class indices for an output of shape \[2, 4"):
        losses.cross_entropy([image], None, labels)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.uint16, torch.uint64])
def test_classes_are_of_any_whole_type(kind: torch.dtype) -> None:
    scores, labels = draw(3, 2), torch.tensor([0, 1, 1])
    assert losses.cross_entropy([scores], None, labels.to(kind)) == torch.nn.functional.cross_entropy(scores, labels)


def test_cross_entropy_refuses_labels_that_are_no_classes() -> None:
    scores = torch.randn(4, 3)
    for wrong in (3, -1, 10**9):
        with pytest.raises(OptionError, match=f"label {wrong} is no class of the model, which has 0 to 2"):
            losses.cross_entropy([scores], None, torch.tensor([0, 1, wrong, 2]))
    marked = torch.tensor([0, 1, -100, 2])
    assert losses.cross_entropy([scores], None, marked) == torch.nn.functional.cross_entropy(scores, marked)


def test_mse_is_to_labels_or_to_the_teacher() -> None:
    output, right = draw(3, 1), draw(3, seed=1)
    assert losses.mse_loss([output], None, right) == torch.nn.functional.mse_loss(output[:, 0], right)
    assert losses.mse_loss([output], [right[:, None]], None) == torch.nn.functional.mse_loss(output[:, 0], right)
    with pytest.raises(OptionError, match="labels are of shape"):
        losses.mse_loss([output], None, draw(4))


def test_sums_and_functions(here: Path) -> None:
    (here / "mine.py").write_text("def loss(outputs, reference, labels):\n    return outputs[0].mean()\n")
    scores, labels = draw(3, 4), torch.tensor([0, 1, 2])
    total = losses.parse_loss("0.25*cross_entropy + 2*mine:loss")([scores], None, labels)
    assert total == pytest.approx(float(0.25 * losses.cross_entropy([scores], None, labels) + 2 * scores.mean()))
    for wrong, said in (("mine:lose", "mine has no lose"), ("kl", "there is no loss 'kl'"), ("-1*mse", "write distill")):
        with pytest.raises(OptionError, match=said):
            losses.parse_loss(wrong)


def test_probabilities_are_taken_for_what_they_are() -> None:
    text = "(float[N,4] x) => (float[N,4] y) { %s y = %s(h) }"
    ends = [to_module(graph(text % ("h = Neg(x)", op))) for op in ("Softmax", "LogSoftmax")]
    labels, x = torch.tensor([0, 3]), draw(2, 4)
    found = []
    for module in ends:
        objective = Objective.of("cross_entropy", module, None, (), 1, 2)
        found.append(float(objective(module.compute({"x": x}), None, labels)))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_values_inside_are_matched() -> None:
    student, teacher = to_module(DIGITS).eval(), to_module(DIGITS).eval()
    inner = student.program.steps[3].outputs[0]
    objective = Objective.of("distill", student, teacher, (inner,), 2.0, 2)
    x = torch.rand(2, 1, 8, 8)
    wanted = (*student.outputs, inner)
    values, given = (module.compute({student.inputs[0]: x}, wanted) for module in (student, teacher))
    assert objective(values, given, None).item() == pytest.approx(0, abs=1e-6)
    values[inner] = values[inner] * 2
    assert objective(values, given, None).item() == pytest.approx(2, rel=1e-4)
    values[inner] = values[inner][:, :1]
    with pytest.raises(OptionError, match="match values whose channels all remain"):
        objective(values, given, None)
    with pytest.raises(OptionError, match="--match 'zzz': no value that both graphs compute is called like that"):
        Objective.of("distill", student, teacher, ("zzz",), 2.0, 2)
