"""From the reduced graph to layers: each step by its rule, branches by the combinators."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from likelify.errors import LikelifyError
from likelify.flowification.graph import Graph, Node
from likelify.flowification.options import Options
from likelify.flowification.reduction import Branches, Series, steps_of
from likelify.flowification.refusals import NotConvertibleError, Refusals, reason
from likelify.flowification.report import WHOLE, LayerRecord, describe
from likelify.flowification.residual_blocks import contraction_layer
from likelify.flowification.rules import RULES, Rule, module_rule
from likelify.flowification.rules_shape import keep_first
from likelify.support import Interval
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.elementwise import Affine
from likelify.transforms.reshape import Permute
from likelify.transforms.residual_flows.layer import LipschitzResidual
from likelify.transforms.surjections.activation import ReLU
from likelify.transforms.surjections.combinators import Parallel
from likelify.transforms.surjections.copying import Repeat, Sum


def mean_parameters(transform: Transform, example: Tensor) -> list[nn.Parameter]:
    """Return the parameters that the noise-free value of a layer depends on, for an input such as the example."""
    known = list(transform.parameters())
    wanted = [parameter.requires_grad for parameter in known]
    try:
        with torch.enable_grad():
            mean = transform.requires_grad_(requires_grad=True).mean_forward(example)
            grads = torch.autograd.grad(mean.sum(), known, allow_unused=True) if mean.requires_grad else []
    finally:
        for parameter, before in zip(known, wanted, strict=True):
            parameter.requires_grad_(before)
    return [parameter for parameter, grad in zip(known, grads, strict=False) if grad is not None]


def _fix(layer: Transform, shape: Shape) -> None:
    """Keep what a layer computes as it is: it was made of constants, not of parameters."""
    dtype = next((parameter.dtype for parameter in layer.parameters()), None)
    if dtype is None:
        return
    # Layers with a domain of their own are made by rules of the user, who knows what is trained in them.
    with suppress(LikelifyError):
        for parameter in mean_parameters(layer, torch.zeros(1, *shape, dtype=dtype)):
            parameter.requires_grad = False


@dataclass
class LayerBuilder:
    """Builds the layers of a graph and keeps the record of each.

    Attributes:
        options: of the conversion.
        refusals: what cannot be converted, so far.
        dtype: of the layers.
        layers: records so far.
        converted: the layer of each step that could be converted; None where nothing is to be done.
        contractions: the sums that became exact residual blocks.
        contracted: for each sum that might have become one, in order, whether it did.
        repeated: `contracted` of an earlier conversion, which this one is to repeat whatever the weights are.
        latent_range: of the result.
    """

    options: Options
    refusals: Refusals
    dtype: torch.dtype
    layers: list[LayerRecord] = field(default_factory=list)
    converted: dict[Node, Transform | None] = field(default_factory=dict)
    contractions: dict[Branches, LipschitzResidual] = field(default_factory=dict)
    contracted: list[bool] = field(default_factory=list)
    repeated: tuple[bool, ...] = ()
    latent_range: str = WHOLE

    def find_contractions(self, series: Series) -> None:
        """Certify residual blocks where that is wanted; note those that cannot be, unless that is optional."""
        if self.options.residual == "repeat":
            return
        for part in series:
            if isinstance(part, Node):
                continue
            if part.join.kind == "sum" and self._contract(part):
                continue
            for branch in part.branches:
                self.find_contractions(branch)

    def _contract(self, part: Branches) -> bool:
        number = len(self.contracted)
        self.contracted.append(False)
        required = self.repeated[number] if number < len(self.repeated) else self.options.residual == "lipschitz"
        if self.repeated and not required:
            return False
        try:
            self.contractions[part] = contraction_layer(part, self.options).to(self.dtype)
        except LikelifyError as error:
            if required:
                self.refusals.add(part.join.name, str(error))
            return False
        self.contracted[number] = True
        return True

    def try_all(self, graph: Graph) -> None:
        """Apply the rule of every step, and note what cannot be converted."""
        inside = {node for part in self.contractions for branch in part.branches for node in steps_of(branch)}
        known = {where for where, _ in self.refusals.found}
        parameters = set(map(id, graph.module.parameters()))
        for node in graph.nodes:
            if node.kind != "step" or node in inside or node.name in known:
                continue
            try:
                layer = self.converted[node] = self._convert(node)
                if layer is not None and not any(use in parameters for use in node.uses):
                    _fix(layer, node.inputs[0].shape)
            except LikelifyError as error:
                label = node.what if node.call is None else "call"
                self.refusals.add(f"{node.name} ({label})", str(error))

    def _convert(self, node: Node) -> Transform | None:
        rule = module_rule(node.target) if isinstance(node.target, nn.Module) else _function_rule(node.target)
        if len(node.inputs) > 1 or rule is None:
            raise NotConvertibleError(reason(node.target, len(node.inputs)))
        before = node.inputs[0].shape
        layer = rule(node.target if node.call is None else node.call, before, self.options)
        if layer is None:
            return None
        if not isinstance(layer, Transform):
            raise NotConvertibleError(f"its rule gave a {type(layer).__name__}, not a Transform or None.")
        if layer.out_shape(before) != node.shape:
            raise NotConvertibleError(f"its rule gave a layer to {layer.out_shape(before)}; {node.shape} is needed.")
        return layer.to(self.dtype)

    def check_ranges(self, series: Series, *, outer: bool = True) -> None:
        """Refuse activations whose range is not the whole line, unless they are the last step."""
        last = next((part for part in reversed(series) if not self._only_moves(part)), None)
        for part in series:
            if isinstance(part, Branches):
                for branch in part.branches if part not in self.contractions else ():
                    self.check_ranges(branch, outer=False)
                continue
            layer = self.converted.get(part)
            image = None if layer is None else layer.image
            if image is None:
                continue
            if outer and part is last:
                self.latent_range = str(image)
            else:
                self.refusals.add(part.name, _refuse_range(layer, image))

    def _only_moves(self, part: Node | Branches) -> bool:
        if isinstance(part, Branches) or part.kind != "step":
            return False
        layer = self.converted.get(part)
        return layer is None or layer.moves_elements

    def series(self, series: Series, depth: int = 0) -> list[Transform]:
        """Return the layers of a series."""
        layers: list[Transform] = []
        for part in series:
            layer = self._step(part, depth) if isinstance(part, Node) else self._branches(part, depth)
            if layer is not None:
                layers.append(layer)
        return layers

    def _step(self, node: Node, depth: int) -> Transform | None:
        shape = node.inputs[0].shape
        if node.kind == "select":
            start, stop = node.channels[0]
            order = [*range(start, stop), *range(start), *range(stop, shape[0])]
            layer = keep_first(shape, order, stop - start, self.options)
        else:
            layer = self.converted[node]
        if layer is not None:
            self.layers.append(describe(node.name, node.what, layer.to(self.dtype), shape, depth))
        return layer

    def _branch(self, series: Series, weight: float, depth: int) -> Transform | None:
        layers = self.series(series, depth)
        if weight != 1:
            layers.append(Affine(scale=weight))
        if not layers:
            return None
        return layers[0] if len(layers) == 1 else Chain(layers)

    def _branches(self, part: Branches, depth: int) -> Transform:
        if (exact := self.contractions.get(part)) is not None:
            self.layers.append(describe(part.join.name, "contraction", exact, part.in_shape, depth))
            return exact
        place = len(self.layers)
        weights = part.join.weights or [1.0] * len(part.branches)
        branches = [self._branch(b, w, depth + 1) for b, w in zip(part.branches, weights, strict=True)]
        layers = self._joined(part, branches)
        # Repetition and join by themselves; the branches have records of their own.
        layer, shape, own = Chain(layers), part.in_shape, []
        for inner in layers:
            if not isinstance(inner, Parallel):
                own.append(describe("", "", inner, shape, depth))
            shape = inner.out_shape(shape)
        self.layers.insert(place, _join_record(part, layer, own, depth))
        return layer

    def _joined(self, part: Branches, branches: list[Transform | None]) -> list[Transform]:
        """Return the layers of a fork: repetition or split, branches, and the sum or concatenation."""
        positions, shape, options = part.in_shape[1:], part.join.shape, self.options
        layers: list[Transform | None] = []
        if part.channels is None:
            sizes = [part.in_shape[0]] * len(branches)
            posterior = options.posterior(part.in_shape)
            copies = {"blocks": True, "noise": options.noise, "posterior_factory": posterior}
            layers.append(Repeat(part.in_shape[0], len(branches), **copies))
        else:
            sizes = part.channels
            layers.append(keep_first(part.in_shape, part.order, sum(sizes), options))
        out = [
            size if branch is None else branch.out_shape((size, *positions))[0]
            for branch, size in zip(branches, sizes, strict=True)
        ]
        layers.append(Parallel(branches, sizes, out))
        if part.join.kind == "sum":
            layers.append(Sum(shape[0], len(branches), net_factory=options.nets(shape), blocks=True))
        if part.places:
            layers.append(Permute(part.places))
        return [layer.to(self.dtype) for layer in layers if layer is not None]


def _join_record(part: Branches, layer: Transform, own: list[LayerRecord], depth: int) -> LayerRecord:
    kind = f"{part.join.kind} of {len(part.branches)}"
    values = {
        name: sum(getattr(entry, name) or 0 for entry in own)
        for name in ("dropped", "added", "parameters", "net_parameters", "cost", "extra")
    }
    likelihood = "bound" if any(entry.likelihood == "bound" for entry in own) else "exact"
    out_shape = layer.out_shape(part.in_shape)
    return LayerRecord(part.join.name, kind, depth, likelihood, tuple(part.in_shape), out_shape, **values)


def _function_rule(target: Any) -> Rule | None:
    """Return the rule of a function or method; a method shares that of the function of its name."""
    if target in RULES:
        return RULES[target]
    return RULES.get(getattr(torch, target, None)) if isinstance(target, str) else None


def _refuse_range(layer: Transform | None, image: Interval) -> str:
    if isinstance(layer, ReLU):
        return (
            "a ReLU sends half of the line to zero, so what follows has no density. Give flowify relu='noisy', which "
            "adds a little noise behind it, or replace it by nn.LeakyReLU(0.2) and train on. As the very last step it "
            "is allowed, with a base such as RectifiedNormal."
        )
    return (
        f"{type(layer).__name__} only reaches {image}; in the middle of a network the base would put mass where "
        "no input leads, and samples would have no preimage. Replace it by nn.LeakyReLU(0.2), nn.PReLU or a spline, or "
        "keep it as the very last step with a base on that range."
    )
