"""The command that makes constants of inputs."""

from __future__ import annotations

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import destination, progress, show, write
from onnxprune.options.commands import Writes
from onnxprune.options.release import ReleaseRecipe


@command(app)
def release(recipe: ReleaseRecipe, given: Writes) -> None:
    """Make constants of inputs that have defaults, so that other commands may change them."""
    from onnxprune.cli import tables
    from onnxprune.cli.suggestions import Suggestions
    from onnxprune.driver.release import release as run
    from onnxprune.ir import files

    out = destination(given).file
    with progress("releasing", quiet=given.as_json) as tell:
        result = run(given.model, recipe)
        tell("writing")
        write(result.compiled, given, result.to_dict())
    sizes = {"before_bytes": files.size_on_disk(given.model), "bytes": files.size_on_disk(out)}
    nexts = Suggestions(given.model, out, shape=recipe.shape).add("inspect", out).commands
    done = {**result.to_dict(), "source": str(given.model), "output": str(out), **sizes, "next": nexts}
    show(done, given, lambda: tables.released(done, commands=nexts, every=given.every))
