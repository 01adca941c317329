"""What a message proposes, taken together, makes the table readable."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest

from likelify.data import SourceOptions, as_source, open_source
from likelify.data.items import open_items
from likelify.errors import DataError

COUNT = 120


def orders() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, COUNT), unit="D")
    frame = {
        "price": rng.normal(50, 9, COUNT).round(2),
        "qty": rng.integers(1, 90, COUNT),
        "city": rng.choice(["Rome", "Oslo", "Bern"], COUNT),
        "day": days.strftime("%Y-%m-%d"),
        "at": [f"{hour % 12 + 1}:{hour:02d} {'AP'[hour % 2]}M" for hour in rng.integers(0, 60, COUNT)],
    }
    return pd.DataFrame(frame).astype(object)


def spoilt(**cells: dict[int, str]) -> pd.DataFrame:
    frame = orders()
    for column, wrong in cells.items():
        for row, cell in wrong.items():
            frame.loc[row, column] = cell
    return frame


def ids_and_sums() -> pd.DataFrame:
    frame = orders().assign(empty="", twice=lambda table: 2 * table["price"], rows=np.arange(COUNT) + 7)
    return frame.assign(**{"order id": [f"A{n}" for n in range(COUNT)], "name": [f"Mr {n}" for n in range(COUNT)]})


CASES = {
    "ids and sums": ids_and_sums(),
    "words among numbers": spoilt(price={3: "soon", 5: "-", 9: "--"}),
    "a comma between thousands": spoilt(qty={9: "62,073", 10: "1,5"}),
    "bad dates": spoilt(day={0: "unknown", 7: "2020-02-31"}),
    "bad times": spoilt(at={1: "25:99", 2: "it's late"}),
    "mostly wrong": spoilt(price={n: f"soon {n}" for n in range(0, COUNT, 3)}),
    "signs": orders().assign(cost=[f"${n / 4:.2f}" for n in range(COUNT)], rate=[f"{n % 30}%" for n in range(COUNT)]),
    "infinite": spoilt(price={3: "inf", 4: "1e200"}),
    "everything": ids_and_sums().assign(price=spoilt(price={3: "soon"})["price"], city=spoilt(city={1: "-"})["city"]),
    "two ways to read days": orders().assign(day=[f"{n % 12 + 1:02d}/{n % 9 + 1:02d}/2020" for n in range(COUNT)]),
    "two ways and one bad": orders().assign(
        day=[f"{n % 12 + 1:02d}/{n % 9 + 1:02d}/2020" if n else "none yet" for n in range(COUNT)]
    ),
}


def proposed(message: str) -> dict[str, str]:
    """Return the options that a message proposes."""
    words = re.search(r"Words that go on: (.*?)(?: \('--drop auto'.*)?\. In Python: (.*)\.", message, re.DOTALL)
    assert words, message
    found = [
        word.removeprefix("--")
        for word in shlex.split(words[1].replace("=", " ", 1) if "--missing=" in words[1] else words[1])
    ]
    options = dict(zip(found[::2], found[1::2], strict=True))
    assert [f"{name}=" for name in options] == words[2].split(", ")
    return options


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("suffix", ["csv", "frame"])
def test_words_that_go_on_do(tmp_path, case, suffix):
    frame = CASES[case]
    path = tmp_path / "a.csv"
    frame.to_csv(path, index=False)
    read = (lambda **options: open_source(path, SourceOptions(**options))) if suffix == "csv" else None
    read = read or (lambda **options: as_source(frame.astype(str), **options))
    with pytest.raises(DataError) as refused:
        read()
    source = read(**proposed(str(refused.value)))
    assert {"city", "at"} <= set(source.columns)
    for column in ("price", "qty", "day"):
        assert column in source.columns or case in ("mostly wrong", "everything")


def test_wrong_cells_are_named_with_their_lines(tmp_path):
    path = tmp_path / "a.csv"
    spoilt(price={3: "soon", 5: "-"}, day={0: "unknown", 7: "2020-02-31"}).to_csv(path, index=False)
    with pytest.raises(DataError) as refused:
        open_source(path)
    for part in (
        "line 5, column 'price': 'soon' is not a number",
        "(one of 2 such values; also '-' in line 7)",
        "line 2, column 'day': 'unknown' is no date as %Y-%m-%d writes it (one of 2 such values; also '2020-02-31' in ",
        "--missing 'soon,-,unknown,2020-02-31'",
    ):
        assert part in str(refused.value)


def test_words_for_missing_values_are_missing_in_what_is_scored_too(tmp_path):
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    spoilt(price={3: "soon"}, city={4: "-"}).to_csv(path, index=False)
    spoilt(price={0: "-", 2: "-99.0"}, city={1: "soon"}, day={2: "-"}).to_csv(other, index=False)
    options = SourceOptions(missing="soon,-,-99")
    source = open_source(path, options)
    schema = {column.name: column for column in source.schema}
    assert schema["price"].missing
    assert schema["city"].categories == ("Bern", "Oslo", "Rome")
    for what in (other, pd.read_csv(other), pd.read_csv(other).assign(price=[np.nan, 1, -99.0, *[1.0] * (COUNT - 3)])):
        rows = next(open_items(what, source.facts(), options).batches(COUNT)).batch.x.numpy()
        missing = np.argwhere(np.isnan(rows)).tolist()
        assert missing == [[0, 0], [1, 2], [2, 0], [2, 3]]


def test_everything_wrong_with_rows_to_score_is_said(tmp_path):
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    orders().to_csv(path, index=False)
    source = open_source(path)
    spoilt(day={3: "soon", 4: "later"}, qty={5: "many"}, at={7: "25:99"}).to_csv(other, index=False)
    for what, place in ((other, "line {}"), (pd.read_csv(other), "row {}")):
        with pytest.raises(DataError) as refused:
            list(open_items(what, source.facts()).batches(7))
        first = 2 if what is other else 0
        for row, part in (
            (3, "column 'day': 'soon' is no date"),
            (5, "column 'qty': 'many' is"),
            (7, "column 'at': '25:99'"),
        ):
            assert f"{place.format(row + first)}, {part}" in str(refused.value)
        assert f"also 'later' in {place.format(4 + first)}" in str(refused.value)


def test_names_that_are_none_are_all_named(tmp_path):
    path = tmp_path / "a.csv"
    orders().to_csv(path, index=False)
    with pytest.raises(
        DataError, match=r"no column 'r', 'zz', 'pryce' \(did you mean 'price'\?\)\. Known are: price, qty"
    ):
        open_source(path, SourceOptions(columns="zz=real", drop="r", given="pryce"))
    orders()[["price", "city"]].assign(empty=1).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(DataError, match=r"no column 'qty', 'day', 'at'\. Known are: price, city, empty\."):
        open_items(tmp_path / "b.csv", open_source(path).facts())


def test_times_with_am_and_pm_are_found(tmp_path):
    frame = orders().assign(
        day=[f"0{n % 9 + 1}/{n % 28 + 1:02d}/2020 0{n % 9 + 1}:{n % 60:02d} PM" for n in range(COUNT)]
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    written = {column.name: column.written for column in open_source(tmp_path / "a.csv").schema}
    assert written["day"] == "%m/%d/%Y %I:%M %p"
    assert written["at"] == "%I:%M %p"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            ["1,5", "3.1"] * 20,
            r"column 'a': its values are no numbers: .1,5. has a decimal comma\. .* 1\.5.*a=cat",
        ),
        (["1,500", "2,250"] * 20, r"column 'a': its values are no numbers: '1,500' .*a=category"),
    ],
)
def test_frames_with_commas_that_can_mean_two_things_are_asked_about(cells, said):
    frame = pd.DataFrame({"a": cells, "b": np.linspace(0, 1, 40)})
    with pytest.raises(DataError, match=said):
        as_source(frame)
    frame["a"] = ["1,5", "3,1"] * 20
    assert as_source(frame).schema[0].states == (1.5, 3.1)
