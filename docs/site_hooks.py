"""What `make docs` adds to the pages in this folder: those that stand at the top of the repository."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
TOP = ("ARCHITECTURE.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name in TOP:
        files.append(File.generated(config, name, content=_moved(ROOT.joinpath(name).read_text("utf-8"))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to pages at the top, which are one folder nearer here."""
    return re.sub(rf"\]\(\.\./({'|'.join(map(re.escape, TOP))})", r"](\1", markdown)


def _moved(markdown: str) -> str:
    """Links of a page at the top: those into ``docs`` without it, those to sources as text."""
    inside = re.sub(r"\]\(docs/", "](", markdown)
    return re.sub(r"\[([^\]]*)\]\((?:tests|models|onnxprune|passes)/[^)]*\)", r"\1", inside)
