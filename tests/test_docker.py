"""The Dockerfile: what it copies and runs, and, without an engine, its steps in an environment of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from command import DIGITS, ROOT

IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


class Step(NamedTuple):
    """An instruction, and the number of the stage that it is in."""

    stage: int
    word: str
    rest: str


def steps() -> list[Step]:
    found, stage = [], -1
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        word, rest = line.split(maxsplit=1)
        stage += word == "FROM"
        found.append(Step(stage, word, rest))
    return found


def copied() -> list[str]:
    """What comes from the checkout."""
    return [name for step in steps() if step.word == "COPY" and "--from" not in step.rest for name in step.rest.split()[:-1]]


def test_it_is_run_by_nobody_in_particular_and_is_a_command() -> None:
    last = [step for step in steps() if step.stage == steps()[-1].stage]
    assert [step.rest for step in last if step.word == "USER"] == ["1000:1000"]
    assert json.loads(next(step.rest for step in last if step.word == "ENTRYPOINT")) == ["onnxprune"]
    assert not [step for step in last if step.word == "RUN"], "the last stage only takes what the first one built"


def test_the_engine_gets_what_is_copied_and_nothing_else() -> None:
    allowed = {line.removeprefix("!") for line in IGNORED if line.startswith("!")}
    assert "*" in IGNORED
    assert allowed == set(copied())
    assert all((ROOT / name).exists() for name in allowed)


@pytest.mark.slow
def test_its_steps_make_a_command(tmp_path: Path) -> None:
    """With the paths of the image below a folder of this test."""
    bin_, venv, source = tmp_path / "bin", tmp_path / "venv", tmp_path / "src"
    bin_.mkdir()
    (bin_ / "python").symlink_to(Path(sys._base_executable))  # type: ignore[attr-defined]
    env = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    env |= {"PATH": f"{bin_}{os.pathsep}{os.defpath}", "HOME": str(tmp_path), "VENV": str(venv), "EXTRAS": ""}
    asks = ["python", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path / "index"), "typer"]
    if subprocess.run(asks, env=env, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("there is no package index")
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    for step in steps():
        if step.word == "RUN":
            done = subprocess.run(["/bin/sh", "-c", step.rest], env=env, cwd=source, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{step.rest}\n{done.stdout}{done.stderr}"
    shutil.rmtree(source)
    work = tmp_path / "work"
    work.mkdir()
    final = {"PATH": f"{venv}/bin{os.pathsep}{os.defpath}", "HOME": str(tmp_path), "VENV": str(venv)}
    command = ["/bin/sh", "-c", f"onnxprune inspect {DIGITS} --json"]
    done = subprocess.run(command, env=final, cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == "inspect"
    assert not list(work.iterdir())
