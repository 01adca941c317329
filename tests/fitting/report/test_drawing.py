import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from likelify.fitting.report import drawing
from likelify.fitting.report.drawing import MODEL, figure, grid_picture, item_picture, label


def opened(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2])))


def test_a_figure_has_the_colours_of_the_page_its_words_as_text_and_no_names_of_others():
    def draw(axes):
        axes.plot([0, 1], [0, 1], color=MODEL)
        axes.set_title("a <b> $x^2$")

    made = [figure(name, draw, alt='says "<i>"') for name in ("one", "two")]
    svg = made[0].svg
    assert "stroke: var(--model)" in svg
    assert not re.search("#0102", svg)
    assert "a &lt;b&gt; $x^2$" in svg
    assert 'aria-label="says &quot;&lt;i&gt;&quot;"' in svg
    names = [set(re.findall(r' id="([^"]+)"', each.svg)) for each in made]
    assert names[0]
    assert not names[0] & names[1]
    assert figure("one", draw, alt='says "<i>"').svg == svg


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("length (mm)", "length (mm)"),
        ("", "(no name)"),
        ("two\nlines\x00\u202e", "two lines"),
        ("x" * 40 + "end", "xxxxxxxxxxxx...xxxxxxxxxend"),
    ],
)
def test_labels_are_one_short_line(name, shown):
    assert label(name) == shown


def test_pixels_are_kept_and_what_is_large_is_made_small(monkeypatch):
    small = np.linspace(0, 1, 16).reshape(1, 4, 4)
    image = opened(item_picture(small, "an image"))
    assert image.size == (4, 4)
    assert np.asarray(image)[..., 0].tolist() == np.round(255 * small[0]).astype(int).tolist()
    grid = opened(grid_picture(np.zeros((5, 3, 6, 4)), "five", "five", columns=3))
    assert grid.size == (3 * 5 - 1, 2 * 7 - 1)
    assert np.asarray(grid)[6, 0].tolist() == [0, 0, 0, 0]
    rng = np.random.default_rng(0)
    large = item_picture(rng.random((3, 500, 300)), "large")
    assert max(opened(large).size) <= drawing.LARGEST_ITEM
    monkeypatch.setattr(drawing, "LARGEST_PICTURE", 20_000)
    many = grid_picture(rng.random((64, 3, 90, 90)), "many", "many")
    assert many.uri.startswith("data:image/webp")
    assert len(base64.b64decode(many.uri.partition(",")[2])) <= 20_000
