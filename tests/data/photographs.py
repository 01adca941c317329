"""Folders of real photographs in many forms: crops of the two that come with scikit-learn."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

# Beside each other, so that crops of any place have both.
PHOTOS = load_sample_images().images
FORMATS = ("png", "jpg", "webp", "tiff")
ORIENTATION = 0x0112


def crop(random, height, width):
    """Return a random crop of one of the photographs, as a Pillow image."""
    photo = PHOTOS[random.integers(len(PHOTOS))]
    top, left = (
        random.integers(whole - side + 1) for whole, side in zip(photo.shape[:2], (height, width), strict=True)
    )
    return Image.fromarray(np.ascontiguousarray(photo[top : top + height, left : left + width]))


def dressed(image, number):
    """Return the crop in the form whose turn it is: mostly colours, some grey, palette, transparent."""
    kind = number % 10
    if kind == 3:
        return image.convert("L")
    if kind == 5:
        return image.quantize(64)
    if kind == 7:
        alpha = Image.linear_gradient("L").resize(image.size)
        image = image.convert("RGBA")
        image.putalpha(alpha)
    return image


def save(image, path, *, orientation=None, **settings):
    """Write an image; with an orientation, so that it must be turned by it to look as it does."""
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        settings["exif"] = exif
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **settings)


def write_photographs(folder, count=50, *, least=64, most=200):
    """Write photographs of different sizes, formats and forms, some of them turned."""
    random = np.random.default_rng(0)
    for number in range(count):
        image = dressed(crop(random, *random.integers(least, most, 2)), number)
        ending = FORMATS[number % len(FORMATS)]
        if ending == "jpg" and image.mode in ("P", "RGBA"):
            ending = "png"
        orientation = 6 if number % 8 == 1 else None
        save(image, folder / f"photo {number:03d}.{ending}", orientation=orientation)
    return folder
