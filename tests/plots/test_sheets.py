"""Sheets of tiles hold images exactly, and panels of images are vector files that need no other."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from likelify.errors import ConfigError, ShapeError
from likelify.plots import grid_of, panels_as_svg, read_tiles, stretched, tiles


@pytest.mark.parametrize(("count", "channels", "levels"), [(16, 3, 256), (5, 1, 17), (8, 1, 2)])
def test_images_are_read_back_from_a_sheet(count, channels, levels):
    images = np.random.default_rng(0).integers(0, levels, (count, channels, 4, 6))
    found = read_tiles(tiles(images, levels), 4, 6)
    assert found.shape == (-(-count // 8) * 8, channels, 4, 6)
    assert np.array_equal(found[:count], stretched(images, levels))
    assert not found[count:].any()


def test_what_a_sheet_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match="got 2 channels and 256 levels"):
        tiles(np.zeros((1, 2, 4, 4), int), 256)
    with pytest.raises(ConfigError, match="got 1 channels and 4,096 levels"):
        tiles(np.zeros((1, 1, 4, 4), int), 4096)
    with pytest.raises(ShapeError, match="32x32 pixels does not hold whole images of 5x4"):
        read_tiles(tiles(np.zeros((64, 1, 4, 4), int), 2), 5, 4)


def test_panels_hold_their_pixels_and_titles():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 7))
    content = panels_as_svg({"a < b": images, "grey": images[:, :1]}, 256, columns=2).decode()
    texts = [part.text for part in ElementTree.fromstring(content).iter() if part.tag.endswith("text")]
    assert texts == ["a < b", "grey"]
    first = base64.b64decode(re.findall(r'base64,([^"]*)"', content)[0])
    with Image.open(io.BytesIO(first)) as picture:
        assert np.array_equal(np.asarray(picture), grid_of(images, 256, columns=2, usual=1))
    below = panels_as_svg({"a": images, "b": images}, 256, columns=2, across=1).decode()
    assert re.findall(r'<image x="0" y="(\d+)"', below) == ["32", str(32 + 32 + 24 + round(400 * 11 / 15))]
    assert "http" not in content.replace("http://www.w3.org/2000/svg", "")
