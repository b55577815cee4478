"""The page of a sweep, as text and in a real browser."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browsing import Opened
from onnxprune.pages.sweep import COSTS, QUALITIES, axes, sweep_page
from sweep_rows import failed, many, run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LINEAR = 10
"""How many times as long as a page of 20 runs one of 1,000 may take; it is about 4."""

pytest.importorskip("altair", reason="pages need the extra report")


def made(rows: list[dict[str, Any]], **asked: Any) -> str:
    return sweep_page(rows, title="sweep of nets", asked=asked)


def test_the_band_says_how_many_are_done_failed_and_left() -> None:
    assert "1 of 1 runs are done<" in made([run()])
    page = made([run(), failed("it broke"), run(state="waiting", key="3")])
    assert "1 of 3 runs are done, 1 failed, 1 are left" in page
    assert 'class="band warn"' in page
    assert 'class="band bad"' in made([failed("it broke")])


def test_options_with_several_values_are_columns() -> None:
    rows = [run(settings={"target": f"macs=0.{i}", "align": "auto"}) for i in (4, 5)]
    page = made(rows)
    assert '<button type="button">target</button>' in page
    assert '<button type="button">align</button>' not in page


def test_numbers_that_nothing_has_are_no_columns_and_no_axes() -> None:
    rows = [run(score=None, drop=None, latency_ms=None, latency_ratio=math.nan)]
    assert [axis.key for axis in axes(rows, QUALITIES)] == ["agreement"]
    assert [axis.key for axis in axes(rows, COSTS)] == ["bytes_ratio", "macs_ratio", "params_ratio"]
    page = made(rows)
    assert "drop, points" not in page
    assert "NaN" not in page.partition('id="data">')[2].partition("</script>")[0]


def test_runs_without_numbers_make_a_page_without_a_picture() -> None:
    page = made([failed("it broke")])
    assert "vegaEmbed" not in page
    assert "it broke" in page
    assert made([])


def test_the_overview_names_the_run_of_least_cost_that_loses_little() -> None:
    rows = [run("a.onnx", f"{i}" * 12, latency_ratio=0.9 - i / 10, drop=i / 100 - 0.005) for i in range(4)]
    rows += [run("b.onnx", "b" * 12, drop=None, agreement=0.9)]
    table = made(rows).partition('id="models"')[2].partition("</table>")[0]
    first, second = re.findall(r"<tr>.*?</tr>", table.partition("<tbody>")[2], re.DOTALL)
    assert "0.800" in first
    assert "1" * 12 in first
    assert "0." not in second


def test_equal_errors_are_told_once_with_the_runs_that_they_ended() -> None:
    rows = [failed("out of memory\nat node Conv_3", key=f"key{i}") for i in range(3)] + [failed("it broke", key="other")]
    said = made(rows).partition("<h2>What failed</h2>")[2].partition("</section>")[0]
    assert said.count("<details>") == 2
    assert said.index("3 runs: out of memory") < said.index("1 run: it broke")
    assert all(f"key{i}" in said for i in range(3))


def test_what_users_named_is_text_and_not_html() -> None:
    evil = "</script><script>alert(1)</script>"
    row = run(evil, evil, settings={evil: evil}, report=f'"{evil}')
    page = sweep_page([row, failed(evil, "b")], title=evil, asked={evil: [evil]})
    assert "<script>alert" not in page
    assert json.loads(page.partition('id="data">')[2].partition("</script>")[0])["title"] == evil


class Shown(Opened):
    """The page of a sweep in a browser."""

    def __init__(self, browser: Browser, file: Path, content: str, **options: Any) -> None:
        file.write_text(content, "utf-8")
        super().__init__(browser, file, **options)
        self.page.wait_for_selector("#fronts svg")

    def _prepare(self) -> None:
        self._session = self.page.context.new_cdp_session(self.page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def taken(self) -> float:
        """The seconds of processor time that the page took so far."""
        metrics = {one["name"]: one["value"] for one in self._session.send("Performance.getMetrics")["metrics"]}
        return float(metrics["TaskDuration"])

    def runs(self) -> list[str]:
        """The runs of the table that are not hidden, by their first cells, from the top."""
        found: list[str] = self.page.evaluate(
            "Array.from(document.querySelectorAll('#runs tbody tr')).filter((row) => !row.hidden)"
            ".map((row) => row.cells[0].innerText)"
        )
        return found

    def column(self, name: str) -> list[str]:
        """The cells of a column of the table."""
        found: list[str] = self.page.evaluate(
            "(name) => { const table = document.getElementById('runs'), heads = Array.from(table.tHead.rows[0].cells),"
            " at = heads.findIndex((head) => head.innerText === name);"
            " return Array.from(table.tBodies[0].rows, (row) => row.cells[at].innerText); }",
            name,
        )
        return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_thousand_runs_of_fifty_models_open_and_sort(browser: Browser, tmp_path: Path, scheme: str) -> None:
    rows = many(50, 20)
    one = Shown(browser, tmp_path / "sweep.html", made(rows), color_scheme=scheme)
    one.page.get_by_role("button", name="latency", exact=True).click()
    numbers = [float(text) for text in one.column("latency") if text]
    assert numbers == sorted(numbers)
    assert not any(one.column("latency")[len(numbers) :])  # those that failed have none, and come last
    assert one.page.locator("#runs th[aria-sort=ascending]").inner_text() == "latency"
    one.page.get_by_role("button", name="latency", exact=True).click()
    assert [float(text) for text in one.column("latency") if text] == numbers[::-1]
    assert not any(one.column("latency")[len(numbers) :])
    assert one.asked == [(tmp_path / "sweep.html").as_uri()]
    assert not one.complaints
    one.page.close()


def test_time_grows_no_faster_than_the_number_of_runs(browser: Browser, tmp_path: Path) -> None:
    taken = []
    for models in (1, 50):
        one = Shown(browser, tmp_path / "sweep.html", made(many(models, 20)))
        one.page.get_by_role("button", name="latency", exact=True).click()
        taken.append(one.taken())
        one.page.close()
    assert taken[1] < LINEAR * taken[0]


def test_models_and_the_front_can_be_chosen(browser: Browser, tmp_path: Path) -> None:
    rows = many(3, 20)
    one = Shown(browser, tmp_path / "sweep.html", made(rows))
    assert len(one.runs()) == 60
    one.page.locator("button[data-model='model1.onnx']").press("Enter")
    assert one.runs() == [row["key"][:12] for row in rows[20:40]]
    one.page.select_option("#show", "front")
    assert one.runs() == [row["key"][:12] for row in rows[20:40] if row["front"]]
    assert one.page.locator("#count").inner_text() == f"{len(one.runs())} runs"


def test_the_picture_shows_the_front_that_the_rows_name(browser: Browser, tmp_path: Path) -> None:
    rows = many(1, 20)
    one = Shown(browser, tmp_path / "sweep.html", made(rows))
    count = len([row for row in rows if row["front"]])
    points = one.page.locator("#fronts svg .mark-symbol.role-mark")
    assert points.last.locator("path").count() == count
    assert points.first.locator("path").count() == len([row for row in rows if row["state"] == "done"]) - count
    one.page.select_option("#cost", "bytes_ratio")
    one.page.wait_for_function("document.querySelector('#fronts svg').textContent.includes('size of the file')")


def test_it_is_readable_on_a_small_screen(browser: Browser, tmp_path: Path) -> None:
    one = Shown(browser, tmp_path / "sweep.html", made(many(3, 20)), viewport={"width": 360, "height": 640})
    assert one.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
