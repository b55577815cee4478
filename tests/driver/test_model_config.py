"""Sizes in configs follow what was pruned; what one number cannot say is told."""

from __future__ import annotations

from typing import Any

import numpy as np

from nets import parse
from onnxprune.axes.plan import Plan
from onnxprune.driver.apply import apply
from onnxprune.driver.model_config import resized
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model

LAYER = """
  n{i} = LayerNormalization(x{i}, g{i}, b{i})
  q{i} = MatMul(n{i}, wq{i}) k{i} = MatMul(n{i}, wk{i}) v{i} = MatMul(n{i}, wv{i})
  qr{i} = Reshape(q{i}, heads) kr{i} = Reshape(k{i}, heads) vr{i} = Reshape(v{i}, heads)
  qh{i} = Transpose<perm = [0,2,1,3]>(qr{i}) kh{i} = Transpose<perm = [0,2,3,1]>(kr{i}) vh{i} = Transpose<perm = [0,2,1,3]>(vr{i})
  s{i} = MatMul(qh{i}, kh{i}) p{i} = Softmax<axis = -1>(s{i}) o{i} = MatMul(p{i}, vh{i})
  ot{i} = Transpose<perm = [0,2,1,3]>(o{i}) of{i} = Reshape(ot{i}, join) a{i} = MatMul(of{i}, wo{i})
  r{i} = Add(x{i}, a{i}) u{i} = MatMul(r{i}, up{i}) h{i} = Relu(u{i}) d{i} = MatMul(h{i}, down{i}) x{j} = Add(r{i}, d{i})
"""
WEIGHTS = (
    "float[16] g{i}, float[16] b{i}, float[16,24] wq{i}, float[16,24] wk{i}, float[16,24] wv{i}, "
    "float[24,16] wo{i}, float[16,32] up{i}, float[32,16] down{i}"
)
NET = f"""(float[N,T,8] x) => (float[N,T,5] y)
<float[8,16] win, int64[4] heads = {{0,0,4,6}}, int64[3] join = {{0,0,24}}, {WEIGHTS.format(i=0)}, {WEIGHTS.format(i=1)},
 float[16,5] wout> {{
  x0 = MatMul(x, win) {LAYER.format(i=0, j=1)} {LAYER.format(i=1, j=2)} y = MatMul(x2, wout)
}}"""
BERT = {"model_type": "bert", "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 32, "vocab_size": 5, "drop": 0.1}
"""Of a network that is as wide as all its heads together, as those are that do not say the size of heads."""
GENAI = {
    "model": {
        "type": "llama",
        "decoder": {
            "head_size": 6,
            "hidden_size": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "num_hidden_layers": 2,
        },
        "vocab_size": 5,
    }
}


def pruned(**kept: int) -> tuple[Model, Model]:
    """The net, and what remains when these many positions of groups stay, by the first weight of each; _ is a dot."""
    model = parse(NET)
    groups = {group.id: group for group in analyze(model, allow_inexact=True).coupling.groups}
    keep = {name: np.arange(kept.get(name.replace(":", "_").replace(".", "_"), group.size)) for name, group in groups.items()}
    assert {name.replace(":", "_").replace(".", "_") for name in keep} >= set(kept), sorted(groups)
    return Model.of(model), apply(model, Plan(keep), verify=False)


def test_sizes_that_all_layers_have_are_written() -> None:
    models = pruned(wq0_1_0=2, wq1_1_0=2, up0_1=24, up1_1=24)
    changed, notes = resized({"config.json": BERT, "genai_config.json": GENAI}, *models)
    assert not notes
    assert changed["config.json"] == {**BERT, "num_attention_heads": 2, "intermediate_size": 24, "head_dim": 6}
    decoder: Any = changed["genai_config.json"]["model"]
    assert decoder["decoder"] == {**GENAI["model"]["decoder"], "num_attention_heads": 2, "num_key_value_heads": 2}  # type: ignore[dict-item]  # it is one


def test_widths_that_differ_are_told() -> None:
    changed, notes = resized({"config.json": BERT}, *pruned(up0_1=24, up1_1=8))
    assert not changed
    assert notes == [
        "config.json: intermediate_size stays 32, which is now 8 to 24: one number cannot say the widths of all layers"
    ]


def test_the_size_of_heads_where_the_config_does_not_say_it() -> None:
    changed, notes = resized({"config.json": BERT}, *pruned(wq0_1_1=4, wq1_1_1=4, wv0_1_1=4, wv1_1_1=4))
    assert not notes
    assert changed["config.json"] == {**BERT, "head_dim": 4}
    changed, notes = resized({"config.json": BERT}, *pruned(wq0_1_1=4))
    assert not changed
    assert notes[0].startswith("config.json: head_dim stays 6, which is now 4 to 6")


def test_the_residual_stream_and_the_size_of_heads() -> None:
    models = pruned(win_1=12, wq0_1_1=4, wq1_1_1=4, wv0_1_1=4, wv1_1_1=4)
    llama = {**BERT, "hidden_size": 16, "head_dim": 6}
    changed, notes = resized({"config.json": llama}, *models)
    assert not notes
    assert changed["config.json"] == {**llama, "hidden_size": 12, "head_dim": 4}


def test_nothing_changes_where_nothing_was_cut() -> None:
    model = Model.of(parse(NET))
    assert resized({"config.json": BERT}, model, model.copy()) == ({}, [])


def test_models_that_cannot_be_matched_are_told() -> None:
    before = Model.of(parse(NET))
    broken = before.copy()
    del broken.weights["up0"]
    changed, notes = resized({"config.json": BERT}, before, broken)
    assert not changed
    assert "config.json: sizes are those of the original: " in notes[0]
