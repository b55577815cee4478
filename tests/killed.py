"""A training in a process of its own that is killed at a point which a test names, however quick the machine is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from command import ENV

PROGRAM = """
import io
import sys

from onnxprune.runtime.threads import bound

bound()  # as the command does, before PyTorch looks

import torch
from onnxprune import cli
from onnxprune.training.checkpoint import Checkpoint

point, number = sys.argv.pop(1).split()
left, save, write = int(number), Checkpoint.save, torch.save

def passed(here):
    global left
    left -= here == point
    if here == point and left == 0:
        print("here", flush=True)
        sys.stdin.read()  # until the kill

def due(self):
    passed("step")
    return False

def write_halves(content, file):
    whole = io.BytesIO()
    write(content, whole)
    half = len(whole.getvalue()) // 2
    file.write(whole.getvalue()[:half])
    file.flush()
    passed("save")
    file.write(whole.getvalue()[half:])

def save_and_tell(self, state):
    save(self, state)
    if self.beside.get("number", 0) == int(number):
        passed("stage")

if point == "stage":
    left = 1  # the first checkpoint there
Checkpoint.due, Checkpoint.save, torch.save = property(due), save_and_tell, write_halves
cli.main()
"""


def kill(args: Sequence[object], point: str) -> None:
    """Run a command until a point, and kill it there.

    Args:
        args: of the command; it trains.
        point: ``step 3``: after the third step; ``save 2``: half of the second checkpoint is written; ``stage 1``: the first
            checkpoint after the first stage is there.
    """
    command = [sys.executable, "-c", PROGRAM, point, *map(str, args)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=ENV | {"PYTHONWARNINGS": "ignore"}, stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdout
        assert "here\n" in iter(running.stdout.readline, ""), "it ended before that point"
        running.kill()
