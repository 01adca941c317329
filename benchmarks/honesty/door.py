"""The door: thousands of wrong calls of many flows and layers, and the right ones beside them."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import likelify as lk
from benchmarks.honesty.judging import add
from likelify import nets, transforms
from likelify.testing import randomize

FEATURES = 3  # of the conditions
Make = Callable[[], Any]


def coupling(channels: int, context_features: int = 0) -> lk.Coupling:
    """Return a coupling of vectors."""
    split = lk.ChannelSplit(channels)
    net = nets.MLP(split.sizes[0], 2 * split.sizes[1], (4,), context_features=context_features)
    return lk.Coupling(split, lk.AffineBijector(), net)


def vector(*layers: Any) -> lk.Flow:
    """Return a flow of vectors of four elements."""
    return randomize(lk.Flow(lk.Normal(4), lk.Chain([lk.ActNorm(4), *layers])), scale=0.1)


def glow(**settings: Any) -> lk.Flow:
    """Return a tiny glow of images with four levels."""
    return lk.zoo.build("glow", event_shape=(1, 4, 4), levels=1, steps=1, hidden=4, pixel_levels=4, **settings)


# Flows without a condition: how one is made, and the shape and kind of its events.
PLAIN: dict[str, tuple[Make, tuple[int, ...], str]] = {
    "actnorm": (vector, (4,), "real"),
    "coupling": (lambda: vector(coupling(4)), (4,), "real"),
    "spline": (lambda: vector(transforms.ChannelSpline(4)), (4,), "real"),
    "conv1x1": (lambda: vector(lk.Conv1x1(4)), (4,), "real"),
    "dense": (lambda: vector(lk.dense_exponential(4)), (4,), "real"),
    "rotation": (lambda: vector(lk.rotation(4)), (4,), "real"),
    "sylvester": (lambda: vector(lk.sylvester(4, 2)), (4,), "real"),
    "planar": (lambda: vector(lk.Inverse(transforms.planar(4))), (4,), "real"),
    "residual": (lambda: vector(lk.LipschitzResidual(nets.LipschitzMLP(4, (4,)), log_det="exact")), (4,), "real"),
    "split": (lambda: lk.Flow(lk.Normal(2), lk.Chain([lk.ActNorm(4), lk.Slice(2, lk.Normal(2))])), (4,), "real"),
    "tanh": (lambda: vector(lk.Inverse(lk.Chain([transforms.Tanh(), lk.Affine(scale=9.0)]))), (4,), "real"),
    "logit": (lambda: lk.Flow(lk.Normal(4), lk.Chain([lk.Logit(), lk.ActNorm(4)])), (4,), "unit"),
    "convolution": (
        lambda: lk.Flow(lk.Normal((2, 4, 4)), lk.Chain([lk.ActNorm(2), lk.conv_exponential(2)])),
        (2, 4, 4),
        "real",
    ),
    "pixels": (
        lambda: lk.Flow(lk.Normal(4), lk.Chain([lk.Dequantize(4), lk.FittedMarginal(4, 4)])),
        (4,),
        "levels",
    ),
    "glow": (glow, (1, 4, 4), "levels"),
    "flowified": (
        lambda: lk.zoo.converted_flow(nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), torch.zeros(2, 4)),
        (4,),
        "real",
    ),
}
CONDITIONAL: dict[str, tuple[Make, tuple[int, ...], str]] = {
    "coupling": (lambda: vector(coupling(4, FEATURES)), (4,), "real"),
    "dense": (lambda: vector(lk.dense_exponential(4, context_features=FEATURES)), (4,), "real"),
    "rotation": (lambda: vector(lk.rotation(4, context_features=FEATURES)), (4,), "real"),
    "planar": (lambda: vector(lk.Inverse(transforms.planar(4, context_features=FEATURES))), (4,), "real"),
    "sylvester": (lambda: vector(lk.generalized_sylvester(4, context_features=FEATURES)), (4,), "real"),
    "residual": (
        lambda: vector(
            lk.LipschitzResidual(nets.LipschitzMLP(4, (4,), context_features=FEATURES), log_det="exact"),
        ),
        (4,),
        "real",
    ),
    "base": (
        lambda: lk.Flow(lk.ConditionalNormal(nn.Linear(FEATURES, 8)), lk.ActNorm(4), event_shape=4),
        (4,),
        "real",
    ),
    "split": (
        lambda: lk.Flow(
            lk.Normal(2), lk.Slice(2, lk.ConditionalNormal(nets.MLP(2, 4, context_features=FEATURES))), event_shape=4
        ),
        (4,),
        "real",
    ),
}
METHODS: dict[str, Callable[[lk.Flow, Any, Any], Any]] = {
    "elbo": lambda flow, x, context: flow.elbo(x, context),
    "forward": lambda flow, x, context: flow(x, context),
    "iw_log_prob": lambda flow, x, context: flow.iw_log_prob(x, context, samples=2),
    "bound_gaps": lambda flow, x, context: flow.bound_gaps(x, context, samples=(2,)),
    "certificate": lambda flow, x, context: flow.certificate(x, context),
    "initialize": lambda flow, x, context: flow.initialize(x, context),
    "log_prob": lambda flow, x, context: (flow.log_prob if flow.likelihood == "exact" else flow.elbo)(x, context),
}
DRAWS: dict[str, Callable[[lk.Flow, Any, Any], Any]] = {
    "sample": lambda flow, shape, context: flow.sample(shape, context),
    "rsample": lambda flow, shape, context: flow.rsample(shape, context),
}


def events(rows: int, shape: tuple[int, ...], kind: str) -> Tensor:
    """Draw events of a kind."""
    if kind == "levels":
        return torch.randint(4, (rows, *shape))
    return torch.rand(rows, *shape) * 0.9 + 0.05 if kind == "unit" else 0.3 * torch.randn(rows, *shape)


def wrong_data(shape: tuple[int, ...], kind: str) -> dict[str, Any]:
    """Return inputs that a flow of such events has to refuse."""
    x = events(5, shape, kind)
    real = torch.rand(5, *shape) * 0.5 + 0.2
    found: dict[str, Any] = {
        "numpy": x.numpy(),
        "list": x.tolist(),
        "None": None,
        "number": 1.0,
        "complex": real.to(torch.complex64),
        "half": real.half(),
        "bfloat16": real.bfloat16(),
        "float64": real.double(),
        "meta": real.to("meta"),
        "scalar": torch.tensor(0.5),
        "another axis": x[..., None],
        "one element fewer": x[..., :-1],
        "one element more": torch.cat([x, x[..., :1]], -1),
        "one element": x[..., :1],
        "an axis less": x.flatten(1)[:, 0] if len(shape) == 1 else x.flatten(1),
    }
    if kind != "levels":
        found |= {f"{dtype}": torch.zeros(5, *shape, dtype=dtype) for dtype in (torch.int64, torch.uint8, torch.bool)}
    return found


def wrong_conditions(rows: int) -> dict[str, Any]:
    """Return contexts that a flow with a condition of `FEATURES` numbers has to refuse for so many rows."""
    right = torch.randn(rows, FEATURES)
    return {
        "none": None,
        "numpy": right.numpy(),
        "a list": right.tolist(),
        "numpy inside": lk.Context(right.numpy()),  # pyright: ignore[reportArgumentType]
        "float64": right.double(),
        "a scalar": torch.tensor(1.0),
        "labels": torch.zeros(rows, dtype=torch.long),
        "too narrow": right[:, :-1],
        "too wide": torch.randn(rows, FEATURES + 1),
        "two rows more": torch.randn(rows + 2, FEATURES),
        "twice the rows": torch.randn(2 * rows, FEATURES),
        "a row fewer": right[:-1],
        "no rows": right[:0],
    }


def expect_refusal(run: Callable[[], Any]) -> str:
    """Return what it means that a wrong call came to an end."""
    run()
    return "SILENT: accepted"


def fine(run: Callable[[], Any]) -> str:
    """Return what it means that a right call came to an end."""
    run()
    return "right"


def refuse(name: str, run: Callable[[], Any], times: int = 1) -> None:
    """Add a wrong call."""
    add("door", name, lambda: expect_refusal(run), times=times, must="refuse")


def accept(name: str, run: Callable[[], Any]) -> None:
    """Add a right call."""
    add("door", name, lambda: fine(run), must="accept")


def door() -> None:
    """Add calls of flows and layers, and wrong compositions of them."""
    data()
    conditions()
    draws()
    sizes()
    layers()
    parts()
    refuse("random chains that do not fit", unfit_chain, times=600)
    refuse("random bases that do not fit", unfit_base, times=400)
    refuse("random bounded layers before a normal base", bounded_end, times=200)


def data() -> None:
    """Add wrong and right data for every method of every flow, and a condition that nothing reads."""
    for (flow, (make, shape, kind)), (method, call) in itertools.product(PLAIN.items(), METHODS.items()):
        for what, x in wrong_data(shape, kind).items():
            refuse(f"{flow}.{method}: {what}", lambda m=make, c=call, x=x: c(m(), x, None))
        x = events(5, shape, kind)
        for rows in (5, 1):
            unread = torch.randn(rows, FEATURES)
            refuse(f"{flow}.{method}: unread", lambda m=make, c=call, x=x, u=unread: c(m(), x, u))
        accept(f"{flow}.{method}", lambda m=make, c=call, x=x: c(m(), x, None))
        if method not in ("initialize", "certificate"):
            accept(f"{flow}.{method}: one event", lambda m=make, c=call, x=x: c(m(), x[0], None))
        refuse(f"{flow}.{method} in half", lambda m=make, c=call, x=x: c(m().half(), x, None))


def conditions() -> None:
    """Add wrong and right conditions for every method of every conditional flow."""
    for (flow, (make, shape, kind)), (method, call) in itertools.product(CONDITIONAL.items(), METHODS.items()):
        for rows in (4, 5):
            x = events(rows, shape, kind)
            for what, condition in wrong_conditions(rows).items():
                refuse(f"{flow}.{method}: condition {what}", lambda m=make, c=call, x=x, y=condition: c(m(), x, y))
            for given in (rows, 1):
                condition = torch.randn(given, FEATURES)
                accept(f"{flow}.{method}: {given} of {rows}", lambda m=make, c=call, x=x, y=condition: c(m(), x, y))


def draws() -> None:
    """Add wrong and right shapes of draws, and conditions for them."""
    for (flow, (make, _, _)), (method, call) in itertools.product(PLAIN.items(), DRAWS.items()):
        for shape in (-1, 2.5, (2, -1), "3", None, (1.5,), True):
            refuse(f"{flow}.{method}({shape!r})", lambda m=make, c=call, s=shape: c(m(), s, None))
        refuse(f"{flow}.{method}: unread", lambda m=make, c=call: c(m(), 2, torch.randn(3, FEATURES)))
        for shape in (2, (), (2, 3), 0, np.int64(2), torch.Size([2])):
            accept(f"{flow}.{method}({shape!r})", lambda m=make, c=call, s=shape: c(m(), s, None))
        for temperature in (-1.0, float("nan"), "hot", None):
            refuse(f"{flow}: temperature {temperature}", lambda m=make, t=temperature: m().sample(2, temperature=t))
    for (flow, (make, _, _)), (method, call) in itertools.product(CONDITIONAL.items(), DRAWS.items()):
        for what, condition in wrong_conditions(4).items():
            if "row" not in what:
                refuse(f"{flow}.{method}: condition {what}", lambda m=make, c=call, y=condition: c(m(), 2, y))


def sizes() -> None:
    """Add counts that are no counts."""
    makers: dict[str, Callable[[Any], Any]] = {
        "Normal": lk.Normal,
        "RectifiedNormal": lk.distributions.RectifiedNormal,
        "ChannelNoise": lk.distributions.ChannelNoise,
        "ActNorm": lk.ActNorm,
        "ChannelSplit": lk.ChannelSplit,
        "PReLU": transforms.PReLU,
        "Dequantize": lk.Dequantize,
        "Columns": transforms.Columns,
        "FittedMarginal": lambda n: lk.FittedMarginal(n, 4),
        "FittedMarginal levels": lambda n: lk.FittedMarginal(4, n),
        "Slice": lambda n: lk.Slice(n, lk.Normal(1)),
        "Augment": lambda n: lk.Augment(n, lk.Normal(1)),
        "Flow": lambda n: lk.Flow(lk.Normal(2), lk.Affine(), event_shape=n),
        "MLP": lambda n: nets.MLP(n, 1),
        "samples": lambda n: vector().elbo(torch.zeros(2, 4), samples=n),
        "draws for weighting": lambda n: vector().iw_log_prob(torch.zeros(2, 4), samples=n),
        "chunk": lambda n: vector().iw_log_prob(torch.zeros(2, 4), samples=2, chunk=n),
    }
    for (name, make), size in itertools.product(makers.items(), (-1, 0, 2.5, "3", True, np.float64(2), float("inf"))):
        refuse(f"{name}({size!r})", lambda m=make, s=size: m(s))


def layers() -> None:
    """Add wrong inputs of layers by themselves, in both directions."""
    made: dict[str, Make] = {
        "ActNorm": lambda: lk.ActNorm(4),
        "ChannelSpline": lambda: transforms.ChannelSpline(4),
        "Conv1x1": lambda: lk.Conv1x1(4),
        "Coupling": lambda: coupling(4),
        "dense_exponential": lambda: lk.dense_exponential(4),
        "linear_exponential": lambda: lk.linear_exponential(nn.Linear(4, 4, bias=False)),
        "rotation": lambda: lk.rotation(4),
        "sylvester": lambda: lk.sylvester(4, 2),
        "FreeLinear": lambda: transforms.FreeLinear(4, 4),
        "LipschitzResidual": lambda: lk.LipschitzResidual(nets.LipschitzMLP(4, (4,)), log_det="exact"),
        "Chain": lambda: lk.Chain([lk.ActNorm(4), coupling(4)]),
        "Inverse": lambda: lk.Inverse(lk.ActNorm(4)),
    }
    x = torch.randn(5, 4)
    wrong = {
        "float64": (x.double(), None),
        "integers": (x.long(), None),
        "half": (x.half(), None),
        "numpy": (x.numpy(), None),
        "list": (x.tolist(), None),
        "narrow": (x[:, :3], None),
        "rows": (x, torch.randn(7, 2)),
        "one row": (x, torch.randn(1, 2)),
    }
    for (name, make), (what, given) in itertools.product(made.items(), wrong.items()):
        refuse(f"{name}: {what}", lambda m=make, g=given: m()(*g))
        refuse(f"{name}.inverse: {what}", lambda m=make, g=given: m().inverse(*g))


def parts() -> None:
    """Add what stands in the place of a part and is none."""
    chain, base = lk.Chain([lk.ActNorm(2)]), lk.Normal(2)
    strange: list[Any] = [
        [lk.ActNorm(2)],
        nn.Sequential(lk.ActNorm(2)),
        nn.Sequential(nn.Linear(2, 2)),
        nn.Linear(2, 2),
        torch.distributions.Normal(0.0, 1.0),
        torch.distributions.ExpTransform(),
        lk.ActNorm,
        torch.tanh,
        torch.zeros(2),
        "glow",
        None,
        3,
    ]
    for part in strange:
        name = type(part).__name__
        refuse(f"Flow(base, {name})", lambda p=part: lk.Flow(base, p))
        refuse(f"Flow({name}, chain)", lambda p=part: lk.Flow(p, chain))
        refuse(f"Chain([{name}])", lambda p=part: lk.Chain([p]))
        refuse(f"Inverse({name})", lambda p=part: lk.Inverse(p))
        refuse(f"Conjugate({name})", lambda p=part: lk.Conjugate(p, lk.ActNorm(2)))
    refuse("swapped", lambda: lk.Flow(chain, base))  # pyright: ignore[reportArgumentType]
    refuse("Chain(a, b)", lambda: lk.Chain(lk.ActNorm(2), lk.ActNorm(2)))  # pyright: ignore[reportArgumentType]
    refuse("Chain(a)", lambda: lk.Chain(lk.ActNorm(2)))  # pyright: ignore[reportArgumentType]
    accept("plain network", lambda: vector(lk.Coupling(lk.ChannelSplit(4), lk.AffineBijector(), nn.Linear(2, 4))))


FITTING: list[Callable[[int], Any]] = [
    lk.ActNorm,
    lk.Conv1x1,
    lk.dense_exponential,
    coupling,
    transforms.ChannelSpline,
    lambda n: lk.Permute.random(n),
    lambda n: lk.Inverse(lk.ActNorm(n)),
    lambda n: lk.Flatten(n),
    lambda n: lk.Chain([lk.ActNorm(n), lk.Affine()]),
    lambda n: transforms.FreeLinear(n, n),
]


def unfit_chain() -> Any:
    """Build a chain of layers of which one is for another number of channels, and use it if that is not noticed."""
    size = random.randint(2, 6)
    made = [random.choice(FITTING)(size) for _ in range(random.randint(1, 4))]
    between = random.choice([[], [lk.Affine()], [lk.Logit(), transforms.LeakyReLU()]])
    other = random.choice([n for n in range(2, 8) if n != size])
    chain = lk.Chain([*made, *between, random.choice(FITTING)(other)])
    return chain(torch.rand(3, size))


def unfit_base() -> Any:
    """Build a flow with a base of another size, and use it if that is not noticed."""
    size = random.randint(2, 6)
    made = [random.choice(FITTING)(size) for _ in range(random.randint(1, 3))]
    other = random.choice([n for n in range(1, 8) if n != size])
    flow = lk.Flow(lk.Normal(other, trainable=random.random() < 0.5), lk.Chain(made))
    return flow.log_prob(torch.rand(3, size))


def bounded_end() -> Any:
    """Build a flow with a normal base behind a bounded layer."""
    last = random.choice([transforms.Sigmoid, transforms.Tanh, transforms.Softplus, transforms.ELU, transforms.Abs])()
    behind = random.choice([[], [lk.Permute([1, 0])], [lk.Affine(scale=0.5, shift=0.1)], [lk.Reshape(2, 2)]])
    return lk.Flow(lk.Normal(2), lk.Chain([lk.ActNorm(2), last, *behind]))
