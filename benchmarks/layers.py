"""The layers of the first paper: mixing, Sylvester and residual layers, and whole models made of them.

    python -m benchmarks.layers --quick
    python -m benchmarks.layers --part sylvester --json sylvester.json

The parts are the modules `benchmarks.layers_*`, which say what they compare; each runs by itself as well.
"""

from benchmarks import layers_mixing, layers_models, layers_residual, layers_sylvester
from benchmarks.report import Entry, arguments, report
from benchmarks.timing import use_malloc_settings

PARTS = {
    "mixing": layers_mixing.entries,
    "sylvester": layers_sylvester.entries,
    "residual": layers_residual.entries,
    "models": layers_models.entries,
}


def main() -> None:
    """Run the parts that are asked for, all by default."""
    use_malloc_settings()
    options = arguments(__doc__ or "", parts=PARTS)
    found: list[Entry] = []
    for part in options.part:
        print(f"== {part}", flush=True)
        found += PARTS[part](quick=options.quick)
    report(found, options.json)


if __name__ == "__main__":
    main()
