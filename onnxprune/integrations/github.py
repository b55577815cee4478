"""GitHub: carries out a recipe in a workflow, fails as its gates say, and keeps one comment with the table on the pull request.

``action.yml`` calls ``python -m onnxprune.integrations.github``. Everything comes by the environment: inputs as ``INPUT_NAME``,
the event and the address of the API as GitHub sets them. Names in models, and what recipes say, are taken for hostile: they
cannot leave their cell of the table, mention people, make links, or command the workflow.

Spec: https://docs.github.com/en/rest/issues/comments, and "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Comments", "cell", "main", "summary"]

_ICONS = {"good": ":white_check_mark:", "worse": ":warning:", "collapsed": ":x:", "unknown": ":grey_question:"}
_PAGE = 100
"""Comments that one request asks for: as many as GitHub gives."""
_PAGES = 100
"""Pages that are looked at, at most."""
_PATIENCE = 30
"""Seconds for one answer of the API."""
_LIMIT = 60_000
"""Characters of a comment; GitHub takes 65,536."""
_BOT = "github-actions[bot]"
_FORBIDDEN = {401, 403, 404}
"""Statuses of an API that a token may not write to, as in a pull request from a fork."""


def cell(text: object) -> str:
    """A text as code in a table of Markdown, whatever is in it: what is no letter, digit or blank becomes its number."""
    plain = " ".join(str(text).split())
    kept = (char if char.isalnum() or char == " " else f"&#{ord(char)};" for char in plain if char.isprintable())
    return f"<code>{''.join(kept)}</code>"


def summary(document: Mapping[str, Any], recipe: str, link: str = "") -> str:
    """What `run` said with ``--json``, as Markdown.

    Args:
        document: it; one with a ``failure`` where the recipe failed.
        recipe: the file.
        link: to the log of the workflow; empty for none.
    """
    lines = [f"### onnxprune {cell(recipe)}", ""]
    if failure := document.get("failure"):
        lines += [f":x: **failed**, exit status {int(failure['exit_status'])}: {cell(failure['message'])}", ""]
    if judged := document.get("judgement"):
        lines += [f"{_ICONS.get(str(judged['level']), '')} {cell(judged['text'])}", ""]
    if "bytes" in document:
        lines += [*_table(document), ""]
    if link:
        lines += [f"[log]({link})"]
    text = "\n".join(lines)
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT].rpartition(chr(10))[0]}\n\n... cut"


def _table(document: Mapping[str, Any]) -> Iterator[str]:
    score, start = document.get("score"), document["bytes"][0]
    metric = f" {cell(score['metric'])} |" if score else ""
    yield f"| step |{metric} bytes | ratio | seconds |"
    yield f"|---|{'--:|' if score else ''}--:|--:|--:|"
    yield f"| original |{_number(score['value']) if score else ''} {start:,} | 1.000 | |"
    for step in document.get("steps") or ():
        scored = _number(step["score"]["value"]) if score else ""
        ratio = step["bytes"] / max(start, 1)
        yield f"| {cell(step['name'])} |{scored} {step['bytes']:,} | {ratio:.3f} | {step['seconds']:.1f} |"


def _number(value: float | None) -> str:
    return " |" if value is None else f" {value:.4f} |"


class _Same(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would take the token along."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Comments:
    """The comments of a pull request.

    Attributes:
        api: the address of the API.
        repository: ``OWNER/NAME``.
        number: of the pull request.
        token: that may write to it.
        author: whose comments are ours: others may write what looks like one.
    """

    api: str
    repository: str
    number: int
    token: str
    author: str = _BOT

    def keep(self, marker: str, text: str) -> None:
        """One comment that begins with the marker has the text: it is made, or changed, and others like it go.

        Raises:
            OSError: the API refuses, or cannot be reached.
        """
        body, path = {"body": f"{marker}\n{text}"}, f"/repos/{self.repository}/issues"
        ours = list(self._ours(marker))
        if not ours:
            self._ask("POST", f"{path}/{self.number}/comments", body)
            return
        self._ask("PATCH", f"{path}/comments/{ours[0]}", body)
        for other in ours[1:]:  # of two workflows that began at the same time
            self._ask("DELETE", f"{path}/comments/{other}")

    def _ours(self, marker: str) -> Iterator[int]:
        for page in range(1, _PAGES):
            where = f"/repos/{self.repository}/issues/{self.number}/comments?per_page={_PAGE}&page={page}"
            found = self._ask("GET", where)
            for one in found:
                if one["user"]["login"] == self.author and (one["body"] or "").splitlines()[:1] == [marker]:
                    yield int(one["id"])
            if len(found) < _PAGE:
                return

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}{path}", data, headers, method=method)  # noqa: S310 - as GitHub sets it
        with urllib.request.build_opener(_Same).open(request, timeout=_PATIENCE) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def main() -> int:
    """Carry out the recipe of the inputs; the status is that of `run`."""
    recipe, words = os.environ.get("INPUT_RECIPE", ""), shlex.split(os.environ.get("INPUT_ARGS", ""))
    report = Path(os.environ.get("RUNNER_TEMP") or ".") / "onnxprune-report.json"
    status, document = _carried_out(recipe, words)
    report.write_text(json.dumps(document, indent=1), encoding="utf-8")
    text = summary(document, recipe, _link())
    _append("GITHUB_STEP_SUMMARY", text)
    _append("GITHUB_OUTPUT", f"report={report}\nstatus={status}")
    if os.environ.get("INPUT_COMMENT", "true") == "true":
        _comment(recipe, text)
    return status


def _carried_out(recipe: str, words: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """The status of `run` and what it printed; its messages go on to the log."""
    command = [sys.executable, "-m", "onnxprune", "run", "--json", *words, "--", recipe]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own program
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:  # it was ended from outside
        failure = {"type": "", "message": f"onnxprune ended with the status {done.returncode}", "exit_status": done.returncode}
        return done.returncode or 1, {"failure": failure}


def _comment(recipe: str, text: str) -> None:
    """Keep the comment where the event is of a pull request; where that is not allowed, a warning says so."""
    token, event = os.environ.get("INPUT_TOKEN", ""), os.environ.get("GITHUB_EVENT_PATH", "")
    told = json.loads(Path(event).read_text("utf-8")) if event else {}
    number = (told.get("pull_request") or {}).get("number")
    if not number or not token:
        return
    author = os.environ.get("INPUT_AUTHOR") or _BOT
    api = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
    comments = Comments(api, os.environ["GITHUB_REPOSITORY"], int(number), token, author)
    try:
        comments.keep(f"<!-- onnxprune {urllib.parse.quote(recipe)} -->", text)
    except OSError as error:
        forbidden = isinstance(error, urllib.error.HTTPError) and error.code in _FORBIDDEN
        hint = "; give the job permissions: pull-requests: write (forks have none)" if forbidden else ""
        sys.stdout.write(f"::warning::{_escaped(f'onnxprune: the comment was not written: {error}{hint}')}\n")


def _link() -> str:
    parts = [os.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")]
    return f"{parts[0]}/{parts[1]}/actions/runs/{parts[2]}" if all(parts) else ""


def _append(variable: str, text: str) -> None:
    """Add to a file that GitHub names, where it names one."""
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def _escaped(text: str) -> str:
    """A text as the value of a command to the workflow."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


if __name__ == "__main__":
    sys.exit(main())
