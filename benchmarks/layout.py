"""What the channels-last layout of weights saves: a training step of a coupling network and of an exponential."""

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.report import Entry, arguments, report
from likelify import conv_exponential
from likelify.nets import ResidualConvNet

SHAPES = ((32, 12, 16, 16), (32, 24, 8, 8))


def step(module: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Return one forward and backward pass."""

    def run() -> None:
        value = module(x)
        value = value[0] if isinstance(value, tuple) else value
        value.square().sum().backward()

    return run


def main() -> None:
    """Time both layouts, interleaved."""
    options = arguments(__doc__ or "")
    entries = []
    for shape in SHAPES:
        x = torch.randn(*shape, requires_grad=True)
        for name, build in (
            ("network", lambda c=shape[1]: ResidualConvNet(c, 2 * c, 44)),
            ("exponential", lambda c=shape[1]: conv_exponential(c, degree=8)),
        ):
            fast, slow = build(), build()
            for parameter in slow.parameters():
                parameter.data = parameter.data.contiguous(memory_format=torch.contiguous_format)
            runs = {"fast": step(fast, x), "slow": step(slow, x)}
            times: dict[str, list[float]] = {key: [] for key in runs}
            for _ in range(5 if options.quick else 25):
                for key, run in runs.items():
                    start = time.process_time()
                    run()
                    times[key].append(time.process_time() - start)
            ratio = statistics.median(times["fast"]) / statistics.median(times["slow"])
            entries.append(Entry(f"channels-last {name} at {shape}", ratio, "of the time"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
