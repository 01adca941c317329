"""Reports of real fits: how long a page takes, how much it weighs, and the pictures of the docs, taken by a browser.

Digits by the default model, a simulated table of 10,000 rows and 10 columns, and sine waves by the model of sequences.
"""

import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report import Entry, arguments, report
from likelify import seeded
from likelify.data import ArraySource, Source, open_source, table
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.scoring.reference import held_out
from likelify.fitting.settings import RunConfig

CHROMIUM = "/usr/bin/chromium"
# Seconds and kilobytes that a page may take.
SECONDS, KILOBYTES = 5.0, 1000
STEPS = {"digits": 600, "table": 800, "series": 400}
# What the pictures of the docs show: name, page, width of the window, dark or light, from and height in pixels.
SHOTS = (
    ("report-digits", "digits", 1100, "light", 0, 2300),
    ("report-phone", "digits", 390, "dark", 0, 1900),
    ("report-table", "table", 1100, "light", 0, 2600),
    ("report-series", "series", 1100, "light", 0, 2300),
)


def simulated(rows: int = 10_000) -> Source:
    """Return a table with what tables have: a curve, two groups, counts, a long tail, columns that go together."""
    rng = np.random.default_rng(0)
    base, group = rng.normal(size=rows), rng.integers(0, 2, rows)
    columns = {
        "normal": base,
        "its square": base**2 + 0.3 * rng.normal(size=rows),
        "two groups": 2.5 * group + 0.6 * rng.normal(size=rows),
        "beside them": np.where(group == 1, 1.2, -0.8) * base + 0.5 * rng.normal(size=rows),
        "long tail": np.exp(0.8 * rng.normal(size=rows)),
        "uniform": rng.uniform(0, 10, rows),
        "its noise": 0.0,
        "a ring, x": 0.0,
        "a ring, y": 0.0,
        "temperature": 15 + 8 * rng.normal(size=rows),
    }
    angle, radius = rng.uniform(0, 2 * np.pi, rows), 3 + 0.25 * rng.normal(size=rows)
    columns["a ring, x"], columns["a ring, y"] = radius * np.cos(angle), radius * np.sin(angle)
    columns["its noise"] = (0.1 + 0.1 * columns["uniform"]) * rng.normal(size=rows)
    return table(np.stack(list(columns.values()), 1), name="simulated", columns=list(columns), description="simulated")


def waves(number: int = 1000) -> Source:
    """Return sequences of two channels: sine waves of any phase and amplitude, the second one following the first."""
    rng = np.random.default_rng(0)
    time_, phase = np.linspace(0, 4 * np.pi, 64), rng.uniform(0, 2 * np.pi, (number, 1))
    height = rng.uniform(0.5, 1.5, (number, 1))
    both = np.stack([height * np.sin(time_ + phase + lag) for lag in (0.0, 0.8)], 1)
    both += 0.05 * rng.normal(size=both.shape)
    parts = {"train": slice(0, -200), "validation": slice(-200, -100), "test": slice(-100, None)}
    described = "1,000 sine waves of two channels, simulated; 800 / 100 / 100"
    return ArraySource.cut("waves", both.astype(np.float32), parts, kind="sequence", levels=None, description=described)


SOURCES = {"digits": lambda: open_source("digits"), "table": simulated, "series": waves}


def fitted(name: str, folder: Path, *, quick: bool) -> tuple[Run, Source]:
    """Fit what suits the data."""
    source = SOURCES[name]()
    steps = 30 if quick else STEPS[name]
    choice = choose(source.facts(), fit_settings={"steps": steps})
    run = Run.create(folder / name, RunConfig(data=source.facts(), **choice.configured()))
    with seeded(0):
        flow = choice.model.build()
    fit(flow, source, run=run)
    run.evaluate(source)
    held_out(run, flow=flow, source=source)
    return run, source


def measure(name: str, run: Run, source: Source) -> list[Entry]:
    """Make the page twice, the first time with all that is imported and compiled on the way."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        file = run.report(source=source)
        seconds.append(time.process_time() - start)
    weight = file.stat().st_size / 1000
    print(f"{name}: {seconds[0]:.1f} processor s the first time, {seconds[1]:.1f} s again; {weight:.0f} kB", flush=True)
    return [
        Entry(f"report of {name}, first time", seconds[0], "processor s", None, SECONDS),
        Entry(f"report of {name}", seconds[1], "processor s", SECONDS),
        Entry(f"report of {name}, weight", weight, "kB", KILOBYTES),
    ]


def photograph(runs: dict[str, Run], folder: Path) -> None:
    """Take the pictures of the docs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, page, width, scheme, top, height in SHOTS:
            if page not in runs:
                continue
            window: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
            opened = browser.new_page(**window)
            opened.goto((runs[page].path / "report.html").as_uri())
            clip = {"x": 0, "y": top, "width": width, "height": height}
            content = opened.screenshot(full_page=True, clip=clip)
            save_small(content, folder / f"{name}.png")
        browser.close()


def save_small(content: bytes, file: Path) -> None:
    """Write a picture with as few colours as it needs."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.quantize(48, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    """Fit, make the pages, and take pictures if a folder is named."""
    more = {"--pictures": {"type": Path, "help": "also write the pictures of the docs to this folder"}}
    options = arguments(__doc__ or "", parts=SOURCES, more=more)
    with tempfile.TemporaryDirectory() as folder:
        runs, entries = {}, []
        for name in options.part:
            runs[name], source = fitted(name, Path(folder), quick=options.quick)
            entries += measure(name, runs[name], source)
        if options.pictures is not None:
            photograph(runs, options.pictures)
    report(entries, options.json)


if __name__ == "__main__":
    main()
