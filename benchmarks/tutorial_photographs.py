"""The figures and pictures of docs/tutorials/photographs.md: a pyramid fitted to crops of two photographs.

    python -m benchmarks.tutorial_photographs --pictures docs/images --page docs/tutorials/photographs.md

Beside the model stand PNG and lossless WebP on the same pixels: the columns of both photographs that nothing was
trained on, each as one picture. The fit is kept in a run, so that a script that was stopped goes on.
"""

from __future__ import annotations

import io
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Entry, arguments, readable, report
from benchmarks.timing import use_malloc_settings
from likelify.data import open_source
from likelify.fitting.choose import choose
from likelify.fitting.drawing.superresolution import Upscaled, upscale
from likelify.fitting.run import Run
from likelify.fitting.scoring.pictures import picture_of_surprises
from likelify.fitting.scoring.surprise import Surprise, surprise_of
from likelify.fitting.settings import RunConfig
from likelify.plots import picture

FOLDER = Path("runs") / "benchmarks"
MARK = "<!-- figures of benchmarks/tutorial_photographs.py -->"
# What is shown of the first photograph, rows and columns: sky, roofs and the edge between.
SHOWN = slice(20, 260), slice(90, 410)
# Columns of the photographs from which the test crops are taken.
UNSEEN = slice(480, 640)
# Colours of a picture in the docs: a palette keeps it small.
COLOURS = 192


def fitted(seconds: float, *, quick: bool) -> Run:
    """Return a run of the default model of photographs, fitted for so many processor seconds; it goes on if it can."""
    folder = FOLDER / f"tutorial-photographs-{seconds:g}"
    source = open_source("sample-photos")
    if (folder / "config.json").exists():
        run = Run.load(folder)
    else:
        settings = {"max_time": seconds, "clock": "processor"} | ({"steps": 5} if quick else {})
        choice = choose(source.facts(), fit_settings=settings)
        run = Run.create(folder, RunConfig(data=source.facts(), **choice.configured()))
    course = run.course()
    if course is None or not course.ended:
        run.resume(source)
    if run.evaluation() is None:
        run.evaluate(source=source)
    return run


def photographs() -> list[np.ndarray]:
    """Return scikit-learn's two photographs, `(3, height, width)`."""
    from sklearn.datasets import load_sample_images

    return [photo.transpose(2, 0, 1) for photo in load_sample_images().images]


def codec_bits(pictures: list[np.ndarray], kind: str, **settings: object) -> float:
    """Return bits/dim of lossless files of pictures `(3, height, width)`, headers included."""
    from PIL import Image

    size = 0
    for each in pictures:
        content = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(each.transpose(1, 2, 0))).save(content, kind, **settings)
        size += content.tell()
    return 8 * size / sum(each.size for each in pictures)


def bits_by_level(run: Run, count: int) -> dict[int, tuple[float, float]]:
    """Return for each stride of pixels their bits per dimension, and their share of all bits, over test images."""
    source = run.source()
    x = source.read("test", torch.arange(count)).x
    flow = run.flow()
    with flow.frozen():
        bits = torch.cat([surprise_of(flow, part) for part in x.split(64)]).mean(0)
    height, width = bits.shape
    found, total = {}, float(bits.sum())
    stride = 2 ** math.ceil(math.log2(max(height, width)))
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    known = torch.zeros(height, width, dtype=torch.bool)
    while stride:
        now = (rows % stride == 0) & (columns % stride == 0) & ~known
        if bool(now.any()):
            found[stride] = float(bits[now].mean()), float(bits[now].sum()) / total
        known |= now
        stride //= 2
    return found


def textured(run: Run, count: int) -> torch.Tensor:
    """Return test images in equal steps by their likelihood, of the less likely half: the other is flat."""
    nats = run.score(split="test", reference=None).nats
    order = np.argsort(nats)[: len(nats) // 2]
    places = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    return run.source().read("test", torch.from_numpy(places)).x


def enlargements(run: Run, images: torch.Tensor, factors: tuple[int, ...], draws: int) -> list[Upscaled]:
    """Draw images from coarse pixels of some of them, fewer and fewer."""
    return [upscale(run, images, factor=factor, draws=draws) for factor in factors]


def rows_of(found: list[Upscaled]) -> tuple[torch.Tensor, int]:
    """Return a grid: the original, then what is known and draws for each factor; and its columns."""
    parts = [] if found[0].original is None else [found[0].original[:, None]]
    for each in found:
        known = each.coarse.repeat_interleave(each.factor, 2).repeat_interleave(each.factor, 3)
        parts += [known[:, None].to(torch.uint8), each.x]
    rows = torch.cat([part.to(torch.uint8) for part in parts], 1)
    return rows.flatten(0, 1), rows.shape[1]


def small_png(content: bytes) -> bytes:
    """Return a picture with a palette."""
    from PIL import Image

    reduced = Image.open(io.BytesIO(content)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    found = io.BytesIO()
    reduced.save(found, "PNG", optimize=True)
    return found.getvalue()


def draw(run: Run, folder: Path, whole: Surprise) -> None:
    """Write the pictures of the page."""
    samples = {f"temperature {each:g}": run.sample(24, temperature=each).numpy() for each in (1.0, 0.8)}
    images, columns = rows_of(enlargements(run, textured(run, 7), (4, 8), 4))
    pictures = {
        "samples": picture(samples, 256, columns=6),
        "finer": picture({"": images.numpy()}, 256, columns=columns),
        "surprise": picture_of_surprises([whole], 256),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        (folder / f"tutorial-photographs-{name}.png").write_bytes(small_png(content))


def rewrite(page: Path, entries: list[Entry]) -> None:
    """Write the figures to their place on the page."""
    lines = ["| | |", "| --- | --- |", *(f"| {each.name} | {readable(each.value)} {each.unit} |" for each in entries)]
    before, _, rest = page.read_text().partition(MARK)
    after = rest.partition(MARK)[2]
    page.write_text(f"{before}{MARK}\n" + "\n".join(lines) + f"\n{MARK}{after}")


def measured(run: Run, seconds: float, *, quick: bool) -> tuple[list[Entry], Surprise]:
    """Return the figures of the page, and the surprise of the first photograph."""
    photos = photographs()
    strips = [photo[:, :, UNSEEN] for photo in photos]
    found = [run.surprise(strip)[0] for strip in strips]
    evaluation = run.evaluation()
    pixels = sum(each.bits.size for each in found)
    start = time.process_time()
    run.sample(64)
    drawn = time.process_time() - start
    unit = "bits/dim"
    entries = [Entry("time of the fit", seconds, "processor seconds")]
    if evaluation is not None and evaluation.elbo.bits is not None:
        entries.append(Entry("1,000 test crops", evaluation.elbo.bits.mean, unit))
    entries += [
        Entry(
            "both unseen strips, as tiles of 32x32", sum(float(each.bits.sum()) for each in found) / pixels, "bits/dim"
        ),
        Entry(
            "the same as lossless WebP", codec_bits(strips, "WEBP", lossless=True, quality=100, method=6), "bits/dim"
        ),
        Entry("the same as PNG", codec_bits(strips, "PNG", optimize=True), unit),
        Entry("64 samples", drawn, "processor seconds"),
    ]
    for stride, (bits, share) in bits_by_level(run, 64 if quick else 1000).items():
        side = -(-run.config.data.event_shape[1] // stride)
        entries.append(Entry(f"pixels that make it {side}x{side}: bits/dim", bits, f"({share:.1%} of all bits)"))
    whole = run.surprise(photos[0])[0]
    return entries, replace(whole, name="", pixels=whole.pixels[:, *SHOWN], bits=whole.bits[SHOWN])


def main() -> None:
    """Fit, measure, draw and report."""
    more = {
        "--seconds": {"type": float, "default": 100.0, "help": "processor seconds of the fit"},
        "--pictures": {"type": Path, "default": None, "help": "folder of the pictures"},
        "--page": {"type": Path, "default": None, "help": "write the figures to this page"},
    }
    use_malloc_settings()
    options = arguments(__doc__ or "", more=more)
    seconds = 5.0 if options.quick else options.seconds
    run = fitted(seconds, quick=options.quick)
    entries, whole = measured(run, seconds, quick=options.quick)
    if options.pictures is not None:
        draw(run, options.pictures, whole)
    if options.page is not None:
        rewrite(options.page, entries)
    report(entries, options.json)


if __name__ == "__main__":
    main()
