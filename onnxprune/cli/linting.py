"""The command that hooks of repositories call."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import complain, failure, show
from onnxprune.options.commands import Lint

if TYPE_CHECKING:
    from onnxprune.driver.lint import Finding


@command(app)
def lint(given: Lint) -> None:
    """Check model files of a repository: none is too large, and none stores zeros that could be encoded."""
    from onnxprune.cli.console import counted
    from onnxprune.driver.lint import lint as run
    from onnxprune.errors import ModelError, QualityError, RequirementError

    found = run(given.files, given.max_size, given.max_zeros)
    bad = [one for one in found if one.problems]
    report = {"files": [one.to_dict() for one in found]}
    if not bad:
        show(report, given, lambda: _print(found))
        return
    kind: type[ModelError | RequirementError] = QualityError if all(one.readable for one in found) else ModelError
    told = f"{len(bad)} of {counted(len(found), 'file')} must be mended"
    show({**report, "failure": failure(told, kind.exit_status, kind.__name__)}, given, lambda: _print(found))
    complain(told)
    sys.exit(kind.exit_status)


def _print(found: Sequence[Finding]) -> None:
    """A line for each file."""
    from onnxprune.cli.console import console, in_bytes, say

    out = console()
    for one in found:
        if not one.readable:
            say(out, one.problems[0])
            continue
        zeros = "pointer of Git LFS, zeros are not known" if one.zeros is None else f"{one.zeros:.0%} zeros stored"
        facts = "; ".join(one.problems) or f"{in_bytes(one.bytes or 0)}, {zeros}"
        say(out, f"{one.path}: {facts}" if one.problems else f"{one.path}: good: {facts}")
