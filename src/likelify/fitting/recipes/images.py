"""What suits images: by where they are from, and by their size."""

import math
from collections.abc import Mapping
from dataclasses import replace

from likelify.data import Facts
from likelify.fitting.recipes.base import Recipe
from likelify.fitting.settings import Draws
from likelify.settings import Values

# In thousands of dimensions the noise of one draw is far below the spread over images; weighting 10,000 images would
# take longer than fitting them.
LARGE_IMAGES = Draws(elbo_samples=1, iw_samples=128, iw_items=500)
# A step takes a tenth of a second of one core.
MINUTES: Mapping[str, Values] = {"fconv2": {"max_time": 900}}
# Photographs of 32x32 pixels.
PHOTOS: Values = {"steps": 4, "hidden": 48, "mixing": "axis-exponential"}
# What is shown is in the middle of each image.
ALIGNED: Mapping[str, Values] = {"pyramid": {"aligned": True}}
# Pixels of an image up to which the pyramid is not what is fitted if no model is named.
SMALL_IMAGE = 16 * 16
USUAL = Recipe("glow")
SOURCES: dict[str, Recipe] = {
    "digits": Recipe(
        "marginal-spline",
        models={
            "glow": {"levels": 1, "steps": 6, "coupling": "spline", "hidden": 48, "dropout": 0.1},
            # The cheap bound: on tiny images the tight one takes as long as the layer.
            "sylvester": {"hidden": 64, "norm_limit": 1.8, "norm_bound": "reshape"},
            "mixing-flow": {"norm_limit": 1.8, "norm_bound": "reshape"},
            "residual": {"hidden": 64},
            "coupling-flow": {"hidden": 64},
        },
        fits={
            "sylvester": {"steps": 600, "lr": 8e-3, "batch_size": 64, "weight_decay": 1e-3},
            "residual": {"steps": 600, "lr": 1e-2, "batch_size": 64},
            "coupling-flow": {"steps": 800, "lr": 4e-3, "batch_size": 64},
            "mixing-flow": {"steps": 800, "lr": 5e-3, "batch_size": 64},
        },
        threads=1,
        draws=Draws(),
    ),
    "sample-photos": Recipe("pyramid", models={"glow": PHOTOS}, draws=LARGE_IMAGES),
    # A user's folder has any number of pictures; forty are overfitted after some hundred steps.
    "images": Recipe(
        "pyramid",
        models={"glow": PHOTOS},
        fits=dict.fromkeys(("pyramid", "glow"), {"max_time": 900, "validations": 30, "patience": 6}),
        draws=LARGE_IMAGES,
    ),
    "fashion-mnist": Recipe("pyramid", models=ALIGNED, fits=MINUTES, draws=LARGE_IMAGES),
    "mnist": Recipe("pyramid", models=ALIGNED, fits=MINUTES, draws=LARGE_IMAGES),
    "cifar-10": Recipe("pyramid", models=ALIGNED, draws=LARGE_IMAGES),
}


def of_images(facts: Facts) -> Recipe:
    """Return the recipe of images by where they are from and by their size."""
    found = SOURCES.get(facts.family, USUAL)
    small = math.prod(facts.event_shape[1:]) <= SMALL_IMAGE
    if small and found.model == "pyramid":
        return replace(found, model="glow")
    return found if small or facts.family in SOURCES else replace(found, model="pyramid")
