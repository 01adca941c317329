"""The pictures of docs/gallery.md, each by commands that anyone can type: `python -m benchmarks.gallery`.

Fits that have ended and pictures that are there are left as they are, so an interrupted gallery goes on where it was.
"""

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Bytes of a picture in the docs.
LARGEST = 150_000
PICTURES = Path("docs/images/gallery")
# Files for everybody, beside the runs: name -> what makes it.
FILES = {
    "moons.csv": """
import numpy, sklearn.datasets
rows, _ = sklearn.datasets.make_moons(5000, noise=0.07, random_state=0)
numpy.savetxt("moons.csv", rows, delimiter=",", header="x,y", comments="")
""",
    "waves.npy": """
import numpy
rng, time = numpy.random.default_rng(0), numpy.arange(64) / 64
phase, speed = rng.uniform(0, 2 * numpy.pi, (2000, 1)), rng.uniform(1, 3, (2000, 1))
angle = phase + 2 * numpy.pi * speed * time
waves = numpy.stack([numpy.sin(angle), numpy.cos(angle)], 1) + 0.05 * rng.normal(size=(2000, 2, 64))
numpy.save("waves.npy", waves)
""",
}


@dataclass(frozen=True)
class Fit:
    """A run of the gallery.

    Attributes:
        run: its folder.
        words: after `likelify fit`.
        quick: words that make it a matter of seconds.
    """

    run: str
    words: str
    quick: str = "--steps 2"

    def command(self, *, quick: bool) -> str:
        """Return the words as they are typed, without the program."""
        return f"fit {self.words}{f' {self.quick}' if quick else ''} -o {self.run}"


# Processor time, so that the pictures do not depend on what else runs.
FITS = (
    Fit("digits", "digits --max-time 60s --set clock=processor"),
    Fit("digits-classes", "digits --conditional --max-time 60s --set clock=processor"),
    Fit("moons", "moons.csv --max-time 20s --set clock=processor"),
    Fit("waves", "waves.npy --max-time 30s --set clock=processor"),
    Fit("photos", "sample-photos --max-time 100s --set clock=processor"),
    Fit("fashion", "fashion-mnist --model glow --set levels=2 --set hidden=32 --max-time 2m --set clock=processor"),
)
# Name of the picture -> the words after `likelify sample`, without `-o`.
SAMPLES = {
    "digits": "digits -n 60",
    "digits-cold": "digits -n 60 --temperature 0.7",
    "digits-classes": "digits-classes -n 60",
    "digits-threes-and-eights": "digits-classes -n 24 --label 3 --label 8",
    "digits-way": "digits --interpolate 3 8",
    "digits-halves": "digits --inpaint test --mask left -n 4",
    "moons": "moons -n 4000",
    "waves": "waves -n 12",
    "waves-completed": "waves --inpaint test --mask 24:40 -n 3 --draws 2",
    "photos": "photos -n 24 --temperature 0.9",
    "photos-finer": "photos --upscale 738",
    "photos-halves": "photos --inpaint 738 --mask left",
    "fashion": "fashion -n 40 --temperature 0.9",
    "fashion-way": "fashion --interpolate 0 11 --steps 10",
}


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fits of two steps: a trial of the commands")
    parser.add_argument("--folder", type=Path, default=Path("runs/gallery"), help="of the runs")
    parser.add_argument("--pictures", type=Path, default=None, help=f"folder of the pictures; by default {PICTURES}")
    parser.add_argument("--only", nargs="*", default=list(SAMPLES), help="names of pictures")
    args = parser.parse_args()
    folder = args.folder.with_name(args.folder.name + "-quick") if args.quick else args.folder
    pictures = args.pictures or (folder / "pictures" if args.quick else PICTURES)
    folder.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        file = pictures.resolve() / f"{name}.png"
        run = SAMPLES[name].split()[0]
        make_run(next(fit for fit in FITS if fit.run == run), folder, quick=args.quick)
        if not file.exists():
            likelify(f"sample {SAMPLES[name]} -o {shlex.quote(str(file))}", folder)
        size = file.stat().st_size
        print(f"{file.name}: {size / 1000:.0f} kB" + (", which is too large for the docs" if size > LARGEST else ""))


def make_run(fit: Fit, folder: Path, *, quick: bool) -> None:
    """Fit a model unless that is done, with the data that it needs."""
    file = fit.words.split()[0]
    if file in FILES and not (folder / file).exists():
        subprocess.run([sys.executable, "-c", FILES[file]], cwd=folder, check=True)
    if not (folder / fit.run / "evaluation.json").exists():
        likelify(fit.command(quick=quick), folder)


def likelify(words: str, folder: Path) -> None:
    """Run a command in a folder and show it."""
    print(f"$ likelify {words}", flush=True)
    subprocess.run([sys.executable, "-m", "likelify.app.cli", *shlex.split(words)], cwd=folder, check=True)


if __name__ == "__main__":
    main()
