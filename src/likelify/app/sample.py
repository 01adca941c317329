"""Drawing from a run, once the words of the command are parsed."""

from pathlib import Path

from likelify.app.show import console
from likelify.fitting.run import Run


def sample_command(path: Path, number: int, out: Path | None, label: int | None, temperature: float, seed: int) -> None:
    """Draw items from a run and write them to a file."""
    from likelify.fitting.draw import samples_file, save_samples

    run = Run.load(path)
    facts = run.config.data
    file, _ = samples_file(facts, run.path / "drawn", out)
    drawn = run.sample(number, label=label, temperature=temperature, seed=seed)
    title = f"{number} samples" if label is None else f"{number} samples of class {label}"
    save_samples(file, facts, {title: drawn})
    console.print(f"{number} samples: {file}")
