"""Pages, as text and in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import documents
import onnxprune
from browsing import Opened
from nets import NETS, parse
from onnxprune.pages.listings import title
from onnxprune.pages.page import page, summary

if TYPE_CHECKING:
    from playwright.sync_api import Browser


DRIFT = {"cosine": 0.9, "agreement": 0.9, "classes": 10, "samples": 20, "source": "--eval eval.npz"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_what_users_named_is_text_and_not_html() -> None:
    evil = "<script>alert(1)</script>"
    made = page(
        documents.pruned(model=evil, notes=[evil], groups=[{"id": evil, "size": 2, "kept": 1, "exact": True, "members": 1}])
    )
    assert evil not in made


def test_a_part_of_a_page_for_notebooks_changes_nothing_around_it() -> None:
    made = summary(documents.pruned())
    assert "99.0% -&gt; 98.5%" in made
    rules = re.findall(r"^([^\s{}][^{}]*)\{", made.partition("</style>")[0].removeprefix("<style>"), re.MULTILINE)
    assert all(".onnxprune" in rule or rule.startswith(("@media", "body.page")) for rule in rules), rules


def test_results_show_themselves_in_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    result = onnxprune.prune(parse(NETS["chain"]), onnxprune.Recipe(target="channels=0.5", align="1"))
    shown = result._repr_html_()
    assert shown
    assert "surgery exact" in shown
    assert "parameters" in shown
    monkeypatch.setattr("onnxprune.driver.result.find_spec", lambda _: None)
    assert result._repr_html_() is None


def opened(browser: Browser, folder: Path, document: dict[str, Any], **options: Any) -> Opened:
    file = folder / "report.html"
    file.write_text(page(document, "onnxprune prune net.onnx"), "utf-8")
    return Opened(browser, file, **options)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_network_and_without_a_complaint(browser: Browser, tmp_path: Path, scheme: str) -> None:
    made = (documents.pruned(), documents.searched(), documents.curves(), documents.recipe())
    for found in (*made, documents.timed(), documents.inspected()):
        one = opened(browser, tmp_path, found, color_scheme=scheme)
        one.page.wait_for_selector("#picture-1 svg")
        assert one.asked == [(tmp_path / "report.html").as_uri()]
        assert not one.complaints
        assert one.page.title() == title(found)
        one.page.close()


def test_pointing_at_a_layer_shows_it(browser: Browser, tmp_path: Path) -> None:
    one = opened(browser, tmp_path, documents.pruned())
    one.page.wait_for_selector("#picture-1 svg")
    one.page.locator("#picture-1 svg path[aria-roledescription=bar]").last.hover()
    one.page.wait_for_selector(".vg-tooltip.visible, #vg-tooltip-element.visible")
    assert "conv2.weight:0" in one.page.locator("#vg-tooltip-element").inner_text()


def test_tables_sort_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    one = opened(browser, tmp_path, documents.pruned())
    one.page.locator("details summary").first.click()
    first = one.page.locator("table.sortable tbody tr td").first
    assert first.inner_text() == "conv0.weight:0"
    button = one.page.get_by_role("button", name="is", exact=True)
    button.focus()
    one.page.keyboard.press("Enter")
    assert first.inner_text() == "conv2.weight:0"
    assert one.page.locator("th[aria-sort=ascending]").inner_text() == "is"


def test_samples_with_another_answer_have_their_pictures(browser: Browser, tmp_path: Path) -> None:
    answers = [{"sample": 7, "before": 3, "after": 8, "label": None}, {"sample": 9, "before": 1, "after": 2, "label": 1}]
    judged = documents.judgement("worse", "said") | {"drift": DRIFT | {"changed": answers}}
    file = tmp_path / "report.html"
    file.write_text(page(documents.pruned(judgement=judged), thumbnails={7: f"data:image/png;base64,{PIXEL}"}), "utf-8")
    one = Opened(browser, file)
    assert one.page.locator(".samples li").all_inner_texts() == ["sample 7\n3 → 8", "sample 9\n1 → 2\nright: 1"]
    assert one.page.locator(".samples img").evaluate_all("all => all.map(one => one.naturalWidth)") == [1]
    assert not one.complaints


def test_ten_thousand_layers_are_drawn(browser: Browser, tmp_path: Path) -> None:
    groups = [{"id": f"layer{i}", "size": 64, "kept": i % 64, "exact": True, "members": 2} for i in range(10_000)]
    one = opened(browser, tmp_path, documents.pruned(groups=groups))
    one.page.wait_for_selector("#picture-1 canvas", timeout=120_000)
    assert not one.complaints


def test_it_is_readable_on_a_small_screen(browser: Browser, tmp_path: Path) -> None:
    one = opened(browser, tmp_path, documents.pruned(), viewport={"width": 360, "height": 640})
    one.page.wait_for_selector("#picture-1 svg")
    assert one.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
