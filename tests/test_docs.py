"""The documents: every file, module and link that they name is there; ARCHITECTURE.md stays one page and knows every room."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE = ROOT / "ARCHITECTURE.md"
LIMIT = 850
"""Words of one page."""
TREE = ("onnxprune", "passes", "tests", "docs", "benchmarks", "models")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code(text: str) -> Iterator[str]:
    """What stands between backticks in prose and tables, outside of fenced blocks."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


def there(path: str, folder: Path = ROOT) -> bool:
    """Whether a file or folder is there; ``<family>`` stands for any name."""
    return any(folder.glob(re.sub(r"<\w+>", "*", path.rstrip("/"))))


def is_module(name: str) -> bool:
    """Whether a dotted name is a module of the package, or a name that a module has."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = "/".join(parts[:count])
        if there(f"{path}.py") or there(path):
            source = ROOT / f"{path}.py" if there(f"{path}.py") else ROOT / path / "__init__.py"
            rest = parts[count : count + 1]
            return not rest or re.search(rf"\b{rest[0]}\b", source.read_text("utf-8")) is not None
    return False


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    for target in targets:
        if not target.startswith(("http:", "https:")):
            assert there(target.partition("#")[0], page.parent), f"{ids(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_and_modules_are_there(page: Path) -> None:
    for said in code(page.read_text("utf-8")):
        for word in said.split():
            if re.fullmatch(rf"(?:{'|'.join(TREE)})/[\w./<>-]*", word):
                assert there(word), f"{ids(page)} names {word}"
            elif re.fullmatch(r"onnxprune(?:\.\w+)+", word):
                assert is_module(word), f"{ids(page)} names {word}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_names_are_in_the_files_that_are_said_to_hold_them(page: Path) -> None:
    for name, file in re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", page.read_text("utf-8")):
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text("utf-8")), f"{ids(page)} says that {file} has {name}"


def test_architecture_is_one_page() -> None:
    words = [word for word in PAGE.read_text("utf-8").split() if re.search(r"\w", word)]
    assert len(words) <= LIMIT, f"ARCHITECTURE.md has {len(words)} words"


def test_architecture_names_every_room() -> None:
    picture = re.search(r"```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert picture
    rooms = {path.parent.name for path in (ROOT / "onnxprune").glob("*/__init__.py")}
    rooms |= {path.stem for path in (ROOT / "onnxprune").glob("[!_]*.py")}
    assert rooms <= set(re.findall(r"\w+", picture[1]))


def test_files_of_the_table_are_there() -> None:
    """Paths are inside of ``onnxprune/`` or from the root; a name without a folder is in the folder before it in its row."""
    text = PAGE.read_text("utf-8")
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    for row in [*rows, *re.findall(r"^\d\. .*(?:\n {3}.*)*", text, re.MULTILINE)]:
        found, folder = 0, ""
        for said in code(row):
            if re.fullmatch(r"[\w/<>]+(?:\.py|/)", said):
                path = said if "/" in said else folder + said
                assert there(path, ROOT / "onnxprune") or there(path), f"ARCHITECTURE.md names {said}"
                found, folder = found + 1, path.rpartition("/")[0] + "/"
        assert found, f"no file in {row!r}"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text("utf-8"))
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
    for name in listed:
        headings = re.findall(r"^## (.*)$", (folder / name).read_text("utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Measurement", "Consequences"], name
