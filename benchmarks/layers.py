"""The layers of the first paper: mixing, Sylvester and residual layers, and whole models made of them.

    python -m benchmarks.layers --quick
    python -m benchmarks.layers --part sylvester --json sylvester.json

The parts are the modules `benchmarks.layers_*`, which say what they compare; each runs by itself as well.
"""

from functools import partial

from benchmarks import layers_mixing, layers_models, layers_residual, layers_sylvester
from benchmarks.report import measured, run_parts

PARTS = {
    "mixing": partial(measured, layers_mixing.PARTS),
    "sylvester": partial(measured, layers_sylvester.PARTS),
    "residual": partial(measured, layers_residual.PARTS),
    "models": partial(measured, layers_models.PARTS),
}


if __name__ == "__main__":
    run_parts(__doc__ or "", PARTS)
