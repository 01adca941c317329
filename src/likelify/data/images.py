"""Image sources that come with scikit-learn, so that they are there without a network."""

import numpy as np

from likelify.data.facts import SplitName
from likelify.data.source import ArraySource, Source, shuffled
from likelify.errors import needs

CROP = 32


def digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits, 8x8 with 17 grey levels and 10 classes.

    Split by `numpy.random.default_rng(0).permutation(1797)`: the first 1,293 train, the next 144 validate, the last 360
    test.
    """
    with needs("scikit-learn", "app"):
        from sklearn.datasets import load_digits
    images, labels = load_digits(return_X_y=True)
    return ArraySource.cut(
        "digits",
        images.reshape(-1, 1, 8, 8),
        shuffled(len(images), validation=144, test=360),
        labels=np.asarray(labels),
        kind="image",
        levels=17,
        description="scikit-learn's handwritten digits (UCI Optical Recognition of Handwritten Digits, test set), "
        "8x8, 17 grey levels; 1293 / 144 / 360 by default_rng(0).permutation",
    )


def sample_photos() -> Source:
    """Return random 32x32 crops of scikit-learn's two sample photographs, 256 levels, no labels.

    The photographs (427 x 640) are cut into strips of columns, so that no pixel is in two splits: 0-440 give 16,000
    training crops, 440-480 give 500 for validation, 480-640 give 1,000 for the test. Places are drawn by
    `numpy.random.default_rng(0)`, each photograph being equally likely.
    """
    with needs("scikit-learn and pillow", "app"):
        from sklearn.datasets import load_sample_images

        photos = np.stack(load_sample_images().images)
    rng = np.random.default_rng(0)
    strips: dict[SplitName, tuple[int, int, int]] = {
        "train": (0, 440, 16000),
        "validation": (440, 480, 500),
        "test": (480, 640, 1000),
    }
    return ArraySource(
        "sample-photos",
        {split: _crops(photos[:, :, left:right], count, rng) for split, (left, right, count) in strips.items()},
        kind="image",
        levels=256,
        description="random 32x32 crops of scikit-learn's sample photographs china.jpg and flower.jpg (CC-BY); "
        "columns 0-440 train, 440-480 validate, 480-640 test",
    )


def _crops(photos: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw crops `(count, 3, 32, 32)` from photos `(n, h, w, 3)`."""
    windows = np.lib.stride_tricks.sliding_window_view(photos, (CROP, CROP), axis=(1, 2))
    which, top, left = (rng.integers(n, size=count) for n in windows.shape[:3])
    return np.ascontiguousarray(windows[which, top, left])
