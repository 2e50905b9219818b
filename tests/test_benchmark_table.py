r"""Tables of a benchmark: one model, and what is made of it."""

import sys
from xml.etree import ElementTree

import pytest

from deepinv_lvtino.benchmark.results import Results, Row
from deepinv_lvtino.benchmark.table import Entry, Table, score_table

ROWS = [
    Row("street", "a|b", "<one>", 2, {"psnr": 20.0}, {"psnr": 1.5}, 3.0, None, 9.0),
    Row("street", "a|b", "two", 2, {"psnr": 25.25}, {"psnr": None}, 1.0, 0.5, None),
]


def test_the_same_entries_in_markdown_and_html():
    table = score_table(ROWS, ["psnr"])
    lines = table.to_markdown()
    assert lines[2] == "| street | a\\|b | <one> | 20.00 | 3 | – | 9 |"
    assert lines[3] == "| street | a\\|b | two | **25.25** | 1 | 0.5 | – |"
    root = ElementTree.fromstring(table.to_html())
    body = [["".join(td.itertext()) for td in tr] for tr in root.iter("tr")][1:]
    assert body == [[one.text for one in row] for row in table.rows]
    assert body[0][1:3] == ["a|b", "<one>"]
    assert ["".join(b.itertext()) for b in root.iter("b")] == ["25.25"]


def test_numbers_stand_on_the_right():
    table = Table(["name", "value"], [[Entry("x"), Entry("1")]], words=1)
    assert table.to_markdown()[1] == "| --- | ---: |"


def test_rows_for_pandas():
    pandas = pytest.importorskip("pandas")
    frame = Results(ROWS, ["psnr"], [], {}, {}).to_dataframe()
    assert list(frame["solver"]) == ["<one>", "two"]
    assert frame.loc[1, "psnr"] == 25.25 and frame.loc[0, "psnr spread"] == 1.5
    assert pandas.isna(frame.loc[1, "evaluations"])
    best = frame.sort_values("psnr").groupby("problem").last()
    assert best.loc["a|b", "solver"] == "two"


def test_pandas_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        Results(ROWS, ["psnr"], [], {}, {}).to_dataframe()
