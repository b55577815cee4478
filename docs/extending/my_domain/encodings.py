"""An encoding of sparse weights: ``--encoding nibbles``."""

from onnxprune.options.registries import ENCODINGS
from onnxprune.sparse.encoding.choose import Family
from onnxprune.sparse.encoding.gaps import Gaps

ENCODINGS.add("nibbles", Family(lambda _: (Gaps(4),)), "The gaps between elements that are stored, in four bits each.")
