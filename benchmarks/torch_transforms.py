"""Which layers work under the transforms of torch: every public layer and every transform is tried, in both directions.

Each call is compared with the plain one in float64. It works, or is refused by one error of likelify that names the
layer, or is broken: another error, or other numbers. `--page FILE` writes the table of the docs. Backends that
compile for seconds to minutes are tried on a layer of each kind; inductor, which needs a C++ compiler, if asked to.
"""

import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.cases import SIZED, LayerCase
from tests.cases.sizes import Sizes
from torch import Tensor
from torch._dynamo.exc import Unsupported
from torch.func import functional_call

from benchmarks.report import Entry, arguments, report
from likelify import Context, Inverse, Transform, errors, seeded
from likelify.errors import LikelifyError

SIZES = Sizes(rows=3, channels=2, height=4, width=3, features=2)
Values = list[Tensor]


@dataclass(frozen=True)
class Call:
    """A layer in one direction, with what it is called with."""

    layer: Transform
    x: Tensor
    context: Context

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and contribution, with the same draws each time."""
        return self.layer(x, self.context)

    def plain(self, x: Tensor) -> Values:
        """Return what an ordinary call gives."""
        with seeded(1):
            return floating(self(x))

    def loss(self, x: Tensor) -> Tensor:
        """Return a number that depends on all that is returned."""
        return loss(self(x))

    @property
    def differentiable(self) -> bool:
        """Whether the input can have a gradient."""
        return self.x.is_floating_point()


def floating(outputs: tuple[Tensor, ...]) -> Values:
    """Return the outputs that can have gradients."""
    return [tensor for tensor in outputs if tensor.is_floating_point()]


def loss(outputs: tuple[Tensor, ...]) -> Tensor:
    """Weigh all outputs and add them up."""
    weights = [torch.linspace(0.5, 1.5, tensor.numel()).to(tensor) for tensor in floating(outputs)]
    return sum((w * t.flatten()).sum() for w, t in zip(weights, floating(outputs), strict=True))  # pyright: ignore


def difference(function: Callable[[Tensor], Values], x: Tensor, tangent: Tensor) -> Values:
    """Return the derivative along a tangent, by central differences of two widths."""
    far, near = ([function(x + width * tangent), function(x - width * tangent)] for width in (4e-6, 2e-6))
    return [(8 * (a - b) - (c - d)) / 2.4e-5 for a, b, c, d in zip(*near, *far, strict=True)]


def plain_gradient(call: Call, x: Tensor) -> Values:
    """Return the gradient of the loss by the input, by ordinary backpropagation."""
    x = x.detach().requires_grad_()
    with seeded(1):
        value = call.loss(x)
    if not value.requires_grad:
        return [torch.zeros_like(x)]
    return [torch.zeros_like(x) if g is None else g for g in torch.autograd.grad(value, [x], allow_unused=True)]


def tangent_of(x: Tensor) -> Tensor:
    """Return a direction."""
    with seeded(2):
        return torch.where(x == 0, 0.0, torch.randn_like(x))


def try_vmap(call: Call) -> tuple[Values, Values]:
    """Map over several batches at once."""
    batches = torch.stack([call.x, call.x.flip(0)])
    with seeded(1):
        found = torch.vmap(call, randomness="same")(batches)
    single = [call.plain(batch) for batch in batches]
    return floating(found), [torch.stack(pair) for pair in zip(*single, strict=True)]


def try_jvp(call: Call) -> tuple[Values, Values]:
    """Push a tangent of the input through."""
    tangent = tangent_of(call.x)
    with seeded(1):
        _, found = torch.func.jvp(lambda x: tuple(floating(call(x))), (call.x,), (tangent,))
    with torch.no_grad():
        return list(found), difference(call.plain, call.x, tangent)


def try_hessian(call: Call) -> tuple[Values, Values]:
    """Take the second derivative by the input."""
    tangent = tangent_of(call.x)
    with seeded(1):
        found = torch.func.jacfwd(torch.func.jacrev(call.loss), randomness="same")(call.x)
    along = (found.reshape(tangent.numel(), -1) @ tangent.flatten()).reshape(tangent.shape)
    return [along], difference(partial(plain_gradient, call), call.x, tangent)


def try_grad(call: Call) -> tuple[Values, Values]:
    """Take the gradient by parameters and input of a functional call."""
    parameters = {name: parameter.detach() for name, parameter in call.layer.named_parameters()}

    def value(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return loss(functional_call(call.layer, parameters, (x, call.context)))

    places = (0, 1) if call.differentiable else (0,)
    with seeded(1):
        found: Any = torch.func.grad(value, argnums=places)(parameters, call.x)
    leaves = [p.requires_grad_() for p in parameters.values()] + [call.x.detach().clone()]
    if call.differentiable:
        leaves[-1].requires_grad_()
    with seeded(1):
        plain = value(dict(zip(parameters, leaves, strict=False)), leaves[-1])
    wanted = leaves if call.differentiable else leaves[:-1]
    if not plain.requires_grad or not wanted:
        return [], []
    expected = torch.autograd.grad(plain, wanted, allow_unused=True)
    flat = [*found[0].values(), *found[1:]]
    return flat, [torch.zeros_like(f) if e is None else e for f, e in zip(flat, expected, strict=True)]


def try_compile(call: Call, backend: str) -> tuple[Values, Values]:
    """Compile without breaks in the graph, and take the gradient by the input."""
    torch.compiler.reset()
    x = call.x.clone().requires_grad_(call.differentiable)
    compiled = torch.compile(call, fullgraph=True, backend=backend)
    with seeded(1):
        outputs = compiled(x)
    found, expected = floating(outputs), call.plain(call.x)
    if call.differentiable and loss(outputs).requires_grad:
        found += torch.autograd.grad(loss(outputs), [x], allow_unused=True)
        found[-1] = torch.zeros_like(x) if found[-1] is None else found[-1]
        expected = expected + plain_gradient(call, call.x)
    return found, expected


INDUCTOR = "compile, inductor"
TRIALS: dict[str, Callable[[Call], tuple[Values, Values]]] = {
    "vmap": try_vmap,
    "jvp": try_jvp,
    "hessian": try_hessian,
    "grad": try_grad,
    "compile, eager": partial(try_compile, backend="eager"),
    "compile, aot_eager": partial(try_compile, backend="aot_eager"),
    INDUCTOR: partial(try_compile, backend="inductor"),
}
NEEDS_TANGENTS = ("jvp", "hessian")
# A layer of each kind of computation: what takes seconds to minutes to compile is tried on these alone.
COMPILED_LAYERS = (
    "ActNorm",
    "Conv1x1",
    "Coupling affine condition image",
    "Coupling spline",
    "Slice condition",
    "conv_exponential",
    "rotation cayley condition",
    "planar",
    "TriangularResidual",
    "max_pool",
)
INDUCTOR_LAYERS = ("ActNorm", "Conv1x1", "Coupling spline", "conv_exponential", "planar")
TRIED_ON = {"compile, aot_eager": COMPILED_LAYERS, INDUCTOR: INDUCTOR_LAYERS}
QUICK_LAYERS = ("ActNorm", "Conv1x1", "Coupling spline", "conv_exponential", "dense_exponential", "planar", "Slice")


def calls(case: LayerCase) -> Iterator[tuple[str, Call]]:
    """Give both directions of a case."""
    with seeded(0):
        layer, x, context = case.ready()
        with torch.no_grad():
            z = layer(x, context)[0]
    yield "forward", Call(layer, x, context)
    yield "inverse", Call(Inverse(layer), z, context)


def outcome(trial: str, call: Call) -> str:
    """Try one transform: works, refused or broken, with what was said; or nothing to try."""
    if trial in NEEDS_TANGENTS and not call.differentiable:
        return "none"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, expected = TRIALS[trial](call)
    except Exception as error:  # noqa: BLE001 - what is tried
        return _refusal(call, error)
    for a, b in zip(found, expected, strict=True):
        gap, scale = float((a.detach() - b.detach()).abs().max()), 1 + float(b.detach().abs().max())
        if not gap <= 1e-5 * scale:
            return f"broken: off by {gap:.3g} of {scale:.3g}"
    return "works"


def _refusal(call: Call, error: BaseException) -> str:
    names = {type(part).__name__ for part in call.layer.modules()}
    said = " ".join(str(error).split())
    ours = isinstance(error, LikelifyError)
    # `torch.compile` reports an error of the code that it records inside one of its own.
    quoted = re.search(r"raised exception (\w+)\((['\"])(.*?)\2\)", said)
    if isinstance(error, Unsupported) and quoted and hasattr(errors, quoted[1]):
        ours, said = True, quoted[3].replace("\\'", "'")
    if ours and any(name in said for name in names):
        return f"refused: {said}"
    return f"broken: {type(error).__name__}: {said}"


# For each case and trial, what became of both directions.
Results = dict[str, dict[str, dict[str, str]]]


def tried(names: Iterable[str], trials: Iterable[str]) -> Results:
    """Try transforms on cases."""
    results: Results = {name: {} for name in names}
    for trial in trials:
        for name in results:
            if name in TRIED_ON.get(trial, results):
                both = calls(SIZED[name].at(SIZES))
                results[name][trial] = {direction: outcome(trial, call) for direction, call in both}
        print(f"{trial}: {dict(counted(results, trial))}", flush=True)
    return results


def counted(results: Results, trial: str) -> Counter[str]:
    """Count works, refused and broken over all cases and directions."""
    found = [said for trials in results.values() for said in trials.get(trial, {}).values()]
    return Counter(said.split(":")[0] for said in found)


def cell(outcomes: dict[str, str]) -> str:
    """Say in a word what became of a trial."""
    kinds = {direction: said.split(":")[0] for direction, said in outcomes.items()}
    if "broken" in kinds.values():
        return "**broken**"
    working = [direction for direction, kind in kinds.items() if kind == "works"]
    if "refused" not in kinds.values():
        return "yes" if working else ""
    return f"{working[0]} only" if working else "refused"


def table(results: Results, trials: Iterable[str]) -> str:
    """Return a row for each layer; variants of one that differ from one another have their own."""
    trials = list(trials)
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, found in results.items():
        cells = tuple(cell(found.get(trial, {})) for trial in trials)
        rows.setdefault((name.split()[0], *cells), []).append(name)
    variants = Counter(layer for layer, *_ in rows)
    lines = [f"| layer | {' | '.join(trials)} |", f"|{' --- |' * (len(trials) + 1)}"]
    for (layer, *cells), names in sorted(rows.items(), key=lambda row: row[0][0].lower()):
        kinds = ", ".join(name.removeprefix(layer).strip() or "plain" for name in names)
        lines.append(f"| `{layer}`{f' ({kinds})' if variants[layer] > 1 else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def refusals(results: Results) -> str:
    """Return a line for each refusal that there is, with the layers that say it."""
    found: dict[str, set[str]] = {}
    for name, trials in results.items():
        for outcomes in trials.values():
            for said in outcomes.values():
                if said.startswith("refused: "):
                    found.setdefault(said.removeprefix("refused: "), set()).add(name.split()[0])
    return "\n".join(f"- {', '.join(f'`{name}`' for name in sorted(who))}: {said}" for said, who in found.items())


PAGE = """# Layers under the transforms of torch

Every public layer is tried under every transform, in both directions, and compared with the plain call in float64:
values and contributions, tangents and second derivatives against differences, gradients against backpropagation.
`python -m benchmarks.torch_transforms --inductor --page docs/torch-transforms.md` wrote this page: of {count:,} trials
{works:,} work, {refused} are refused by one error that names the layer and says what to do, {broken} are broken.

- `vmap` maps over several batches; layers that draw at random need `randomness="same"` or `"different"`.
- `jvp`, `hessian` and `grad` are those of `torch.func`, `grad` by all parameters and the input of a `functional_call`.
  Hessians of layers that draw at random are `jacfwd(jacrev(f), randomness="same")`.
- `compile` is `torch.compile(layer, fullgraph=True)` with the backend named, called and differentiated. There, torch
  quotes the refusal inside of its own error; without `fullgraph=True`, layers that cannot
  be traced for other reasons run outside of the graph instead.
- Inside all of them no values can be looked at, so domains and accuracies are not checked: what would be refused
  outside is NaN or infinite there.
- Empty cells were not tried: integers have no tangents, and the backends that compile for long are tried on a layer of
  each kind.

{table}

## What is refused, and what to do

{refusals}
"""


def page(results: Results) -> str:
    """Return the page of the docs."""
    total = sum((counted(results, trial) for trial in TRIALS), Counter())
    total.pop("none", None)
    counts = {kind: total[kind] for kind in ("works", "refused", "broken")}
    return PAGE.format(count=total.total(), table=table(results, TRIALS), refusals=refusals(results), **counts)


def figures(results: Results) -> list[Entry]:
    """Return how many trials work, are refused and are broken, transform by transform."""
    entries = []
    for trial in TRIALS:
        counts = counted(results, trial)
        if not counts:
            continue
        entries += [Entry(f"{trial}: {kind}", counts[kind], "") for kind in ("works", "refused")]
        entries.append(Entry(f"{trial}: broken", counts["broken"], "", must=0))
    return entries


def main() -> None:
    """Try all, report and write the page."""
    page_option = {"type": Path, "help": "write the table of the docs to this file"}
    inductor_option = {"action": "store_true", "help": "compile some layers with inductor as well"}
    options = arguments(__doc__ or "", more={"--page": page_option, "--inductor": inductor_option})
    if options.inductor and not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++")):
        raise SystemExit("--inductor needs a C++ compiler (c++, g++ or clang++), and none is installed.")
    trials = [trial for trial in TRIALS if trial != INDUCTOR or options.inductor]
    results = tried(QUICK_LAYERS if options.quick else SIZED, trials)
    print(table(results, trials))
    for name, found in results.items():
        for trial, outcomes in found.items():
            broken = {direction: said for direction, said in outcomes.items() if said.startswith("broken")}
            if broken:
                print(f"{name}, {trial}: {broken}")
    if options.page:
        options.page.write_text(page(results), encoding="utf-8")
    report(figures(results), options.json)


if __name__ == "__main__":
    main()
