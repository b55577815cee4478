"""The programs that draw pictures where a page is opened; made once for each version, because that takes seconds.

Needs vl-convert, which is an extra.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from importlib.metadata import version

import vl_convert

from onnxprune.errors import OutputError
from onnxprune.ir.caches import user_cache
from onnxprune.ir.outputs import replace_file

__all__ = ["programs"]


@functools.cache
def programs() -> str:
    """Vega, Vega-Lite and Vega-Embed, as JavaScript; about 0.9 MB.

    They are kept in the user's folder for caches, behind a line with their SHA-256; what does not fit its line is made anew.
    """
    kept = user_cache() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        line, _, code = kept.read_bytes().partition(b"\n")
        if line == _line(code):
            return code.decode()
    made = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    with contextlib.suppress(OSError, OutputError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(kept) as file:
            file.write(_line(made.encode()) + b"\n" + made.encode())
    return made


def _line(code: bytes) -> bytes:
    return b"// " + hashlib.sha256(code).hexdigest().encode()
