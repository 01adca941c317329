"""What is hidden, in words."""

import numpy as np
import pytest
from PIL import Image

from likelify.errors import ConfigError
from likelify.fitting.drawing.masks import mask_of
from tests.fitting.drawing.test_writing import IMAGES, ROWS, SEQUENCES

COLOURS = IMAGES.model_copy(update={"event_shape": (3, 4, 6)})


@pytest.mark.parametrize(
    ("word", "rows", "columns"),
    [
        ("left", slice(0, 4), slice(0, 3)),
        ("right", slice(0, 4), slice(3, 6)),
        ("top", slice(0, 2), slice(0, 6)),
        ("bottom", slice(2, 4), slice(0, 6)),
        ("center", slice(1, 3), slice(1, 4)),
        ("2,1,4,3", slice(1, 4), slice(2, 6)),
    ],
)
def test_halves_and_boxes(word, rows, columns):
    wanted = np.zeros((3, 4, 6), bool)
    wanted[:, rows, columns] = True
    assert np.array_equal(mask_of(word, COLOURS), wanted)


def test_files(tmp_path):
    hidden = np.zeros((4, 6), bool)
    hidden[1, 2:5] = True
    Image.fromarray((hidden * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", hidden)
    # Of 16 bits, in which 400 is nearly black.
    Image.fromarray(np.where(hidden, 65535, 400).astype(np.uint16)).save(tmp_path / "fine.png")
    for name in ("mask.png", "mask.npy", "fine.png"):
        assert np.array_equal(mask_of(str(tmp_path / name), COLOURS), np.broadcast_to(hidden, (3, 4, 6)))


def test_sequences_and_columns():
    assert mask_of("1:3", SEQUENCES).tolist() == [[False, True, True]] * 2
    assert mask_of("b", ROWS).tolist() == [False, True]


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("lft", COLOURS, "no mask 'lft'. Did you mean 'left'.*LEFT,TOP,WIDTH,HEIGHT"),
        ("0,0,7,1", COLOURS, "reaches beyond the images of 6x4 pixels"),
        ("0,0,0,1", COLOURS, "hides nothing"),
        ("3:3", SEQUENCES, "START:STOP"),
        ("c", ROWS, "no column 'c'"),
        ("missing.npy", COLOURS, "cannot be read as a .npy file"),
    ],
)
def test_other_words_are_refused(word, kind, message):
    with pytest.raises(ConfigError, match=message):
        mask_of(word, kind)


def test_files_that_do_not_fit_are_refused(tmp_path):
    np.save(tmp_path / "mask.npy", np.ones((4, 5), bool))
    with pytest.raises(ConfigError, match=r"has shape \(4, 5\); the images have \(3, 4, 6\)"):
        mask_of(str(tmp_path / "mask.npy"), COLOURS)
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="cannot be read as a picture"):
        mask_of(str(tmp_path / "mask.png"), COLOURS)
