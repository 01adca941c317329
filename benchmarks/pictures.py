"""Folders of pictures: how many a second are looked at, decoded, and read ahead while a model is trained.

The pictures are crops of scikit-learn's two photographs, 427x640 or enlarged to 3000x4000 as phones take them. All are
brought to 3x32x32.

- opening: headers and hashes, by processor time of one core;
- decoding: JPEG and PNG, by processor time of one core;
- reading: batches of 32 of a folder that is too large to be held in memory, by the clock, with 0, 1 and 2 processes
  beside the first one; what the machine has of free cores decides;
- training: steps of the usual glow, by the clock, over the same steps with all items in memory.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.report import Entry, arguments, measured, report
from likelify import zoo
from likelify.data import folder
from likelify.data.ahead import read_ahead
from likelify.data.folder import FolderSource, image_folder
from likelify.data.pictures import Target, decode, look
from likelify.fitting.feeding import Feed
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.fitting.training import Objective, build_optimizer, descend

SMALL, LARGE = (640, 427), (4000, 3000)
TARGET = Target(3, 32, 32, 256)
BATCH = 32
WORKERS = (0, 1, 2)


def write(place: Path, count: int, size: tuple[int, int], ending: str = "jpg") -> list[str]:
    """Write photographs that differ in brightness; return their names."""
    photos = [Image.fromarray(photo).resize(size) for photo in load_sample_images().images]
    names = []
    for number in range(count):
        table = (np.arange(256) * (1 - 0.3 * number / count)).astype(np.uint8).tolist()
        names.append(f"{number:04d}.{ending}")
        photos[number % 2].point(table * 3).save(place / names[-1], quality=90)
    return names


def per_second(work: Callable[[], int], clock: Callable[[], float], least: float) -> float:
    """Return how many items a second are worked on, after one round that does not count."""
    work()
    begin, done = clock(), 0
    while clock() - begin < least:
        done += work()
    return done / (clock() - begin)


def rates(title: str, size: tuple[int, int], ending: str, *, quick: bool) -> list[Entry]:
    """Measure opening and decoding of pictures of one kind."""
    least = 1.0 if quick else 2.0
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        names = write(place, 4 if quick else 16, size, ending)
        looks = per_second(lambda: len([look(place, name) for name in names]), time.process_time, least)
        decodes = per_second(lambda: len([decode(place / name, TARGET) for name in names]), time.process_time, least)
    print(f"{title}: {looks:,.0f} headers and {decodes:,.0f} pictures a second", flush=True)
    return [
        Entry(f"headers of {title}", looks, "pictures per second", better="higher"),
        Entry(f"decoding {title}", decodes, "pictures per second", better="higher"),
    ]


def alone(*, quick: bool) -> list[Entry]:
    """Measure opening and decoding in one process, by its processor time."""
    cases = (("JPEG 427x640", SMALL, "jpg"), ("PNG 427x640", SMALL, "png"), ("JPEG 3000x4000", LARGE, "jpg"))
    return [entry for case in cases for entry in rates(*case, quick=quick)]


def lazily(place: Path) -> FolderSource:
    """Open a folder as one that is too large to be held in memory."""
    kept, folder.AT_ONCE_FILES = folder.AT_ONCE_FILES, 0
    try:
        return image_folder(place)
    finally:
        folder.AT_ONCE_FILES = kept


def batches(size: int) -> Iterator[torch.Tensor]:
    """Return numbers of random items without an end."""
    while True:
        yield torch.randint(size, (BATCH,))


def ahead(*, quick: bool) -> list[Entry]:
    """Measure reading with several numbers of processes, by the clock."""
    entries = []
    with tempfile.TemporaryDirectory() as made:
        write(Path(made), 64, SMALL)
        source, number = lazily(Path(made)), 20 if quick else 60
        for workers in WORKERS:
            read = read_ahead(source, "train", batches(source.size("train")), workers=workers)
            # The processes start with the first batches.
            list(islice(read, 5))
            begin = time.perf_counter()
            list(islice(read, number))
            rate = number * BATCH / (time.perf_counter() - begin)
            read.close()
            print(f"{workers} processes beside the first: {rate:,.0f} pictures a second", flush=True)
            name = f"reading JPEG 427x640 with {workers} workers"
            entries.append(Entry(name, rate, "pictures per second", better="higher"))
    return entries


def step_seconds(source: FolderSource, workers: int, steps: int) -> float:
    """Return the median time of a training step by the clock."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = zoo.build("glow", event_shape=source.event_shape, levels=2, steps=4, hidden=38)
    settings = FitSettings(batch_size=BATCH, steps=1000, workers=workers)
    flow.initialize(source.read("train", torch.arange(BATCH)).x)
    objective, optimizer, times = Objective(flow), build_optimizer(flow, settings), []
    with Feed(flow, source, settings) as feed:
        for step in range(steps):
            begin = time.perf_counter()
            loss, _ = objective(feed.batch(step))
            descend(optimizer, loss, settings, OneProcess("cpu"))
            times.append(time.perf_counter() - begin)
    return float(np.median(times[2:]))


def training(*, quick: bool) -> list[Entry]:
    """Measure steps of a fit to a folder over those with all items in memory."""
    entries, steps = [], 12 if quick else 30
    with tempfile.TemporaryDirectory() as made:
        write(Path(made), 64, SMALL)
        held, lazy = image_folder(Path(made)), lazily(Path(made))
        memory = step_seconds(held, 0, steps)
        for workers in WORKERS:
            ratio = step_seconds(lazy, workers, steps) / memory
            print(f"{workers} processes beside the first: a step takes {ratio:.2f} of one in memory", flush=True)
            entries.append(Entry(f"step with {workers} workers over one in memory", ratio, "x"))
    return entries


PARTS = {"alone": alone, "ahead": ahead, "training": training}


def main() -> None:
    """Run the parts and print the figures."""
    options = arguments(__doc__ or "", parts=PARTS)
    report(measured(PARTS, options.part, quick=options.quick), options.json)


if __name__ == "__main__":
    main()
