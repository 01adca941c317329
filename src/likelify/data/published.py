"""What is known of sets of images without their files: what their authors published, cut as their files are."""

from likelify.data import cifar
from likelify.data.facts import Facts
from likelify.data.source import CLASSES, LEVELS, held_out

# Shape of an image, and how many the training files and the test files have.
PUBLISHED: dict[str, tuple[tuple[int, ...], int, int]] = {
    "mnist": ((1, 28, 28), 60_000, 10_000),
    "fashion-mnist": ((1, 28, 28), 60_000, 10_000),
    "cifar-10": (cifar.SHAPE, 50_000, 10_000),
}


def published_facts(name: str) -> Facts | None:
    """Return the facts of a set as its authors published it, without a fingerprint; None if it is not known here.

    Args:
        name: the family of a source, see `Facts`.

    Example:
        >>> published_facts("mnist").sizes
        {'train': 55000, 'validation': 5000, 'test': 10000}
    """
    if name not in PUBLISHED:
        return None
    shape, training, test = PUBLISHED[name]
    validation = held_out(training)
    return Facts(
        name=name,
        family=name,
        kind="image",
        fingerprint="",
        event_shape=shape,
        levels=LEVELS,
        classes=CLASSES,
        sizes={"train": training - validation, "validation": validation, "test": test},
    )
