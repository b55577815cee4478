"""Reports as pages: one HTML file from the data of ``--json``, which loads nothing from elsewhere; and model cards.

`contents` says what a page tells, `brief` tells it on a few lines of text, `charts` describes its pictures (Vega-Lite, written
by Altair), `page` fills the templates in `templates/` (Jinja), `card` writes the README of a folder.

Change here: what a report shows, and how it looks. What commands find is in `onnxprune.driver.report`.
"""
