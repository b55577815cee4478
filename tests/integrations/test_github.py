"""The action: a recipe with a made-up event, against a made-up API on the loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import onnx
import pytest
import yaml

from command import ENV, ROOT, net
from onnxprune.integrations.github import Comments, cell, main, summary

MARKER = "<!-- onnxprune r.toml -->"
BOT = "github-actions[bot]"
RECIPE = """model = "net.onnx"
output = "built.onnx"
eval = "c.npz"
metric = "cosine"
{gate}
[prune]
target = "macs=0.7"
align = "1"
"""
HOSTILE = "a|b`\n::error::x <img src=x> @octocat #1 [x](http://evil) </code> \u202e www.evil.com"


class Api(ThreadingHTTPServer):
    """Comments as GitHub keeps them: pages of them, and who wrote each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        self.address = f"http://127.0.0.1:{self.server_port}"

    def write(self, body: str, author: str = BOT) -> int:
        number = len(self.asked) + len(self.comments) + 1
        self.comments.append({"id": number, "body": body, "user": {"login": author}})
        return number


class Handler(BaseHTTPRequestHandler):
    server: Api

    def _handle(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        self.server.asked.append((self.command, self.headers["Authorization"]))
        asked, comments = urlsplit(self.path), self.server.comments
        answer: Any = None
        if self.server.status == 200 and self.command == "GET":
            page, per_page = (int(parse_qs(asked.query)[name][0]) for name in ("page", "per_page"))
            answer = comments[(page - 1) * per_page : page * per_page]
        elif self.server.status == 200 and self.command == "POST":
            assert asked.path == "/repos/o/n/issues/7/comments"
            self.server.write(body["body"])
        elif self.server.status == 200:
            (one,) = [one for one in comments if asked.path == f"/repos/o/n/issues/comments/{one['id']}"]
            comments.remove(one) if self.command == "DELETE" else one.update(body)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815 - names that http.server looks for

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def comments(api: Api) -> Comments:
    return Comments(api.address, "o/n", 7, "token")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: Api) -> Path:
    """A checkout with a recipe, and the environment of a workflow for a pull request."""
    onnx.save(net(), tmp_path / "net.onnx")
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    (tmp_path / "r.toml").write_text(RECIPE.format(gate=""))
    (tmp_path / "event.json").write_text(json.dumps({"pull_request": {"number": 7}}))
    given = {
        "INPUT_RECIPE": "r.toml",
        "INPUT_ARGS": "--force",
        "INPUT_TOKEN": "token",
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GITHUB_API_URL": api.address,
        "GITHUB_REPOSITORY": "o/n",
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_RUN_ID": "3",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        "RUNNER_TEMP": str(tmp_path),
        "PYTHONPATH": ENV["PYTHONPATH"],
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The whole


def test_a_recipe_is_carried_out_and_its_table_kept_once(folder: Path, api: Api) -> None:
    assert main() == 0
    assert (folder / "built.onnx").exists()
    (comment,) = api.comments
    assert comment["body"].startswith(f"{MARKER}\n### onnxprune <code>r&#46;toml</code>\n")
    assert "| <code>prune</code> |" in comment["body"]
    assert "[log](https://github.example/o/n/actions/runs/3)" in comment["body"]
    assert (folder / "summary.md").read_text() in f"{comment['body']}\n"
    assert f"report={folder / 'onnxprune-report.json'}\nstatus=0\n" in (folder / "outputs").read_text()
    assert json.loads((folder / "onnxprune-report.json").read_text())["command"] == "run"

    (folder / "r.toml").write_text(RECIPE.format(gate='min_score = "1"'))
    assert main() == 1
    (again,) = api.comments
    assert again["id"] == comment["id"]
    assert "**failed**, exit status 1" in again["body"]
    assert {token for _, token in api.asked} == {"Bearer token"}


def test_a_token_that_may_not_write_is_a_warning(folder: Path, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.status = 403
    (folder / "r.toml").write_text("nonsense")
    assert main() == 2
    assert capsys.readouterr().out.startswith("::warning::onnxprune: the comment was not written: HTTP Error 403")
    assert "**failed**, exit status 2" in (folder / "summary.md").read_text()


@pytest.mark.parametrize(("name", "value"), [("INPUT_COMMENT", "false"), ("INPUT_TOKEN", ""), ("GITHUB_EVENT_PATH", "")])
def test_nothing_is_asked_where_no_comment_is_wanted(
    folder: Path, api: Api, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    (folder / "r.toml").write_text("nonsense")
    monkeypatch.setenv(name, value)
    assert main() == 2
    assert not api.asked


# One comment


def test_what_others_wrote_stays(api: Api, comments: Comments) -> None:
    api.write(f"{MARKER}\nlooks like ours", author="mallory")
    api.write("<!-- onnxprune other.toml -->\nof another recipe")
    api.write(f"I quote\n{MARKER}")
    comments.keep(MARKER, "first")
    comments.keep(MARKER, "second")
    assert [one["body"] for one in api.comments][3:] == [f"{MARKER}\nsecond"]
    assert api.comments[0]["body"].endswith("looks like ours")


def test_ours_is_found_behind_a_hundred_others(api: Api, comments: Comments) -> None:
    for number in range(250):
        api.write(f"comment {number}", author="somebody")
    comments.keep(MARKER, "first")
    comments.keep(MARKER, "second")
    assert [one["body"] for one in api.comments[250:]] == [f"{MARKER}\nsecond"]


def test_of_two_that_were_written_at_once_one_stays(api: Api, comments: Comments) -> None:
    first = api.write(f"{MARKER}\none")
    api.write(f"{MARKER}\r\nother")
    comments.keep(MARKER, "new")
    assert api.comments == [{"id": first, "body": f"{MARKER}\nnew", "user": {"login": BOT}}]


def test_the_token_goes_nowhere_else(api: Api, comments: Comments) -> None:
    api.status = 302
    with pytest.raises(OSError, match="302"):
        comments.keep(MARKER, "text")


# Hostile names


def test_a_name_stays_in_its_cell() -> None:
    made = cell(HOSTILE)
    inside = re.fullmatch(r"<code>(.*)</code>", made)
    assert inside
    assert not re.search(r"[^\w &#;]", inside[1])
    assert not re.search(r"[|<>`@\[\]()!*_\n\u202e]|www\.|://", inside[1])


def test_hostile_names_do_not_change_the_table() -> None:
    step = {"name": HOSTILE, "bytes": 5, "seconds": 1.0, "score": {"value": None}, "report": {}}
    document = {
        "bytes": [10, 5],
        "score": {"metric": HOSTILE, "value": 0.5},
        "steps": [step],
        "judgement": {"level": "good", "text": HOSTILE},
        "failure": {"exit_status": 1, "message": HOSTILE},
    }
    rows = [line for line in summary(document, HOSTILE).splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == [6, 6, 6, 6]
    assert len(summary({"failure": {"exit_status": 1, "message": "x" * 10**6}}, "r.toml")) < 65_536


# The action itself

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


def test_no_input_reaches_a_shell_but_by_the_environment() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        for name, value in step["env"].items():
            assert value == f"${{{{ inputs.{name.removeprefix('INPUT_').lower()} }}}}"


def test_every_input_is_used() -> None:
    used = {value for step in ACTION["runs"]["steps"] for value in step["env"].values()}
    assert used == {f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_its_steps_run_in_a_shell_whatever_the_recipe_is_called(folder: Path, api: Api) -> None:
    install, run = (step["run"] for step in ACTION["runs"]["steps"])
    subprocess.run(["bash", "-n", "-c", install], check=True)  # noqa: S607 - as GitHub calls it
    program = folder / "onnxprune" / "bin" / "python"  # where the first step puts it
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    env = {**os.environ, "INPUT_RECIPE": "r.toml; touch made $(touch made)"}
    done = subprocess.run(["bash", "-e", "-c", run], check=False, env=env, capture_output=True, text=True)  # noqa: S607 - as above
    assert done.returncode == 2, done.stderr
    assert "no such file" in done.stderr
    assert not (folder / "made").exists()
    assert "**failed**" in api.comments[0]["body"]
