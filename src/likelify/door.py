"""The door of a flow: what all its methods refuse before any layer works, each time with what to do about it.

Parts and their shapes and supports are looked at when the flow is built. Inputs are looked at once in each call: that
they are tensors of the flow's dtype, on its device, with its events; that rows and condition belong together; that a
condition is given only if some part reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from likelify.distributions.core import Distribution, item_count, repeat_context
from likelify.errors import (
    ConvergenceError,
    DomainError,
    InexactLikelihoodError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)
from likelify.shapes import Shape, check_event, event_words
from likelify.structure import Context, ContextLike, as_context, with_condition
from likelify.support import LINE, MINUS_TO_ONE, NOT_NEGATIVE, POSITIVE, UNIT, Interval
from likelify.tracing import is_tracing
from likelify.transforms.core import Composite, Transform, layers_of, require_transforms
from likelify.transforms.shapes import can_agree, events_behind

if TYPE_CHECKING:
    from likelify.flows import Flow

# What pushes a normal distribution onto an interval.
ONTO = {
    UNIT: "lk.Inverse(lk.transforms.Sigmoid())",
    MINUS_TO_ONE: "lk.Inverse(lk.transforms.Tanh())",
    POSITIVE: "lk.Inverse(lk.transforms.Softplus())",
    NOT_NEGATIVE: "lk.Inverse(lk.transforms.Softplus())",
}


class Admitted(NamedTuple):
    """What was let in.

    Attributes:
        x: `(rows, *event)`.
        context: encoded, with one row for each of `x`.
        shape: of the results, `(items,)`, or `(*sample, items)` if the input had such axes, or `()` for one event.
    """

    x: Tensor
    context: Context
    shape: Shape


def check_parts(base: Any, transform: Any, encoder: Any) -> None:
    """Refuse parts that no flow can be made of.

    Raises:
        UnsupportedError: for parts of another kind, atoms without a place, a base that reaches further than the
            latent, and probabilities of whole numbers that would not sum to one.
        InexactLikelihoodError: if the base has no exact log-density.
    """
    if isinstance(base, Transform) and isinstance(transform, Distribution):
        raise UnsupportedError("The parts are in the wrong order: the base comes first, lk.Flow(base, transform).")
    if not isinstance(base, Distribution):
        whose = "torch's " if isinstance(base, torch.distributions.Distribution) else ""
        raise UnsupportedError(
            f"The base of a Flow is a Distribution of likelify, and {whose}{type(base).__name__} is none. Take "
            "lk.Normal(event_shape), or write a Distribution with log_prob and rsample (around it)."
        )
    require_transforms("Flow", transform)
    if encoder is not None and not isinstance(encoder, nn.Module):
        raise UnsupportedError(f"The encoder of a Flow is a torch.nn.Module, not a {type(encoder).__name__}.")
    if base.likelihood != "exact":
        raise InexactLikelihoodError(
            f"The base of a Flow needs an exact log_prob; {type(base).__name__} has {base.likelihood}s only. "
            "If it is a flow, put its layers behind those of this one."
        )
    if not base.has_atoms and transform.has_atoms:
        raise UnsupportedError(
            "A layer of this flow sends many inputs to one value (ReLU), and its base has no probability for "
            "single values, so there is no density. Take the base RectifiedNormal behind a ReLU that is the last "
            "layer; elsewhere NoisyReLU or LeakyReLU."
        )
    _check_support(base, transform.image)
    _check_bounds(base, transform)
    _check_masses(base, transform)


def _check_bounds(base: Distribution, transform: Transform) -> None:
    """Refuse a base that reaches everywhere behind a layer that does not, if nothing in between stretches its image."""
    bounding = transform.confine(None)
    if bounding is None or base.support is None or LINE != base.support:
        return
    raise UnsupportedError(
        f"{type(bounding).__name__} in this flow reaches no further than {bounding.image}, and the layers behind map "
        f"the whole space onto itself, so its base {type(base).__name__} has mass where no data lead: it would be "
        "missing from the density, and could not be drawn. Leave the layer out, put lk.Inverse(...) of it behind, or "
        "take one that reaches everywhere, such as lk.LeakyReLU or a spline."
    )


def _check_masses(base: Distribution, transform: Transform) -> None:
    """Refuse what would make something else of the probabilities of whole numbers."""
    if base.of_integers and not (transform.keeps_integers or transform.moves_elements):
        raise UnsupportedError(
            f"The base {type(base).__name__} gives whole numbers their probabilities, and the layers of this flow do "
            "not keep them whole: it would have neither a density nor probabilities. Put in front of such a base only "
            "layers that keep integers, such as lk.transforms.YCoCgR."
        )
    writers = list(_writers(transform))
    if not writers:
        return
    *front, last = [layer for layer in layers_of(transform) if not layer.moves_elements]
    if writers == [last] and base.is_standard and all(layer.keeps_integers for layer in front):
        return
    others = [layer for layer in (*front, last) if layer not in writers and (layer is last or not layer.keeps_integers)]
    faults = [] if base.is_standard else [f"the base {type(base).__name__}, which is no standard normal for good"]
    faults += [f"the layer {type(layer).__name__}" for layer in others] or [f"{len(writers)} such layers"] * (
        len(writers) > 1
    )
    raise UnsupportedError(
        f"{type(writers[0]).__name__} gives whole numbers their probabilities, which sum to one if its noise is "
        "standard normal. So it is the last layer of a flow, not turned round or inside another one; its base is "
        "lk.Normal(shape), without parameters; and in front are only layers that keep integers, such as "
        f"lk.transforms.YCoCgR. This flow has {' and '.join(faults)}."
    )


def _writers(module: nn.Module) -> Iterator[Transform]:
    """Give the layers that write elements, wherever they are; distributions inside have seen to theirs."""
    if isinstance(module, Transform) and module.writes_elements and not isinstance(module, Composite):
        yield module
        return
    for inner in module.children():
        if not isinstance(inner, Distribution):
            yield from _writers(inner)


def _check_support(base: Distribution, image: Interval | None) -> None:
    if image is None or base.support is None or image.covers(base.support):
        return
    onto = ONTO.get(image, "lk.Inverse(last_layer)")
    raise UnsupportedError(
        f"The layers of this flow end in {image}, and its base {type(base).__name__} reaches over {base.support}: what "
        f"it has outside would be missing from the density, and could not be drawn. Take a base that lives there: "
        f"lk.Flow(lk.Normal(shape), {onto}); for a network of yours zoo.converted_flow does so."
    )


def event_shape_of(base: Distribution, transform: Transform, declared: Shape | None) -> Shape | None:
    """Return the shape of data events, declared or told from the base; None where it cannot be told.

    Raises:
        ShapeError: if layers and base do not fit one another.
    """
    latent = events_behind([transform], declared, "this Flow")
    if not can_agree(latent, base.event_shape):
        raise ShapeError(
            f"The layers of this flow give events ({event_words(latent or (...,))}) to its base, and "
            f"{type(base).__name__} is for events ({event_words(base.event_shape or (...,))}). Give the base the shape "
            "transform.out_shape(event_shape)."
        )
    if declared is not None or base.event_shape is None:
        return declared
    try:
        return transform.data_shape(base.event_shape)
    except (UnsupportedError, NotImplementedError):
        return None


def admit(flow: Flow, x: Tensor, context: ContextLike) -> Admitted:
    """Let data into a flow.

    Args:
        flow: whose method was called.
        x: `(rows, *event)`, or `(*sample, rows, *event)`, or one event.
        context: one row of a condition for each row of `x`, or one for all; for graphs, also one for each graph.

    Raises:
        UnsupportedError: for what is no tensor, and for a condition that no part reads.
        DomainError: for another dtype.
        ShapeError: for other events or rows.
    """
    if not isinstance(x, Tensor):
        raise UnsupportedError(
            f"A flow works on tensors and got a {type(x).__name__}: give torch.as_tensor(x), in the flow's dtype."
        )
    leading = _leading(flow.event_shape, x)
    like = None
    if not is_tracing():
        like = tensor_of(flow)
        _check_data(flow, x, like)
    found = _broadcast(admit_context(flow, context, like), leading)
    sample, rows = leading[:-1], leading[-1:]
    if len(leading) == 1:
        return Admitted(x, found, (item_count(found) if found.structure is not None else rows[0],))
    items = (item_count(found),) if rows and found.structure is not None else rows
    if math.prod(sample) != 1:
        _, found = repeat_context(sample, found)
    return Admitted(x.reshape(math.prod(leading), *x.shape[len(leading) :]), found, (*sample, *items))


def admit_context(flow: Flow, context: ContextLike, like: Tensor | None = None) -> Context:
    """Let a context into a flow, encoded.

    Args:
        flow: whose method was called.
        context: as the caller gave it.
        like: what `tensor_of(flow)` gives, if it is known already.

    Raises:
        UnsupportedError: for a condition that is no tensor, or that no part of the flow reads.
        DomainError: for a condition of more digits than the flow has.
        ShapeError: if there is none and the flow has an encoder for it.
    """
    found = as_context(context)
    if not is_tracing():
        _check_condition(flow, found, tensor_of(flow) if like is None else like)
    if flow.encoder is None:
        return _per_node(found)
    if found.condition is None:
        raise ShapeError(
            f"This flow is conditional (its encoder is {flow.encoder}): give labels or a condition as context."
        )
    return _per_node(with_condition(found, flow.encoder(found.condition)))


def _per_node(context: Context) -> Context:
    """Return a context with graphs whose condition has a row for each node; it may be given for each graph."""
    structure, condition = context.structure, context.condition
    if structure is None or condition is None or len(condition) == len(structure.owner):
        return context
    if len(condition) == 1:
        return with_condition(context, condition.expand(len(structure.owner), *condition.shape[1:]))
    if len(condition) != len(structure):
        raise ShapeError(
            f"The condition has {len(condition)} rows, and there are {len(structure)} graphs of "
            f"{len(structure.owner)} nodes together: give one row for each graph or for each node, or one for all."
        )
    return with_condition(context, condition[structure.owner])


def _check_condition(flow: Flow, context: Context, like: Tensor | None) -> None:
    condition = context.condition
    _check_precision(like)
    if condition is None:
        return
    if not isinstance(condition, Tensor):
        raise UnsupportedError(f"A condition is a tensor (rows, features) or labels (rows,), not {type(condition)}.")
    if context.must_be_read and not flow.reads_condition:
        raise UnsupportedError(
            "A condition was given, and no part of this flow reads one: its result would be the same for all "
            "conditions. Build networks and layers with context_features=, or leave the context out. (A layer of yours "
            "that reads the context by itself declares reads_condition = True.)"
        )
    if condition.ndim == 0:
        raise ShapeError("A condition has rows: (rows, features), or labels (rows,). This one is a single number.")
    if like is not None and condition.dtype is torch.float64 and like.dtype is torch.float32:
        raise DomainError(
            "The condition is in torch.float64 and the flow in torch.float32: give condition.float(), or make the "
            "flow double with flow.double()."
        )


def _check_data(flow: Flow, x: Tensor, like: Tensor | None) -> None:
    if like is None:
        return
    if x.device != like.device:
        raise UnsupportedError(f"The input is on {x.device} and the flow on {like.device}: move one with .to(...).")
    if not x.is_floating_point():
        if x.is_complex() or not flow.transform.takes_integers:
            raise DomainError(
                f"The data are {_kind(x)} and the first layer works on real values, so there would be no density. Put "
                "lk.Dequantize(levels) in front (for a network of yours: zoo.converted_flow), or give x.float() if the "
                "values are measurements that happen to be whole."
            )
        return
    if x.dtype is like.dtype or torch.is_autocast_enabled(x.device.type):
        return
    if flow.transform.takes_float64 and x.dtype in (torch.float32, torch.float64):
        return
    wider = torch.promote_types(x.dtype, like.dtype) is x.dtype
    remedy = f"make the flow as precise with flow.to({x.dtype}), or give x.to({like.dtype})"
    raise DomainError(
        f"The data are in {x.dtype} and this flow is in {like.dtype}: "
        f"{remedy if wider else f'give x.to({like.dtype})'}."
    )


def _kind(x: Tensor) -> str:
    return "complex" if x.is_complex() else f"integers ({x.dtype})"


def _check_precision(like: Tensor | None) -> None:
    if like is not None and like.dtype in (torch.float16, torch.bfloat16):
        raise DomainError(
            f"This flow is in {like.dtype}, which has too few digits for a log-density. Keep it in torch.float32 "
            "(flow.float()), and use torch.autocast for the speed of its networks."
        )


def tensor_of(flow: nn.Module) -> Tensor | None:
    """Return a tensor that has the dtype and the device of a flow: a parameter, or else a buffer; None without any."""
    found = _first(flow, "_parameters")
    return _first(flow, "_buffers") if found is None else found


def _first(module: nn.Module, kind: Literal["_parameters", "_buffers"]) -> Tensor | None:
    # Ten times as fast as `next(module.parameters())`, which counts in each call of a flow.
    for tensor in getattr(module, kind).values():
        if tensor is not None and tensor.is_floating_point():
            return tensor
    for part in module._modules.values():
        found = None if part is None else _first(part, kind)
        if found is not None:
            return found
    return None


def _leading(event: Shape | None, x: Tensor) -> Shape:
    """Return the axes in front of the event."""
    if event is None:
        if not x.ndim:
            raise ShapeError("A flow works on inputs (rows, *event) and got a single number.")
        return tuple(x.shape[:1])
    count = x.ndim - len(event)
    if count < 0 or tuple(x.shape[count:]) != event:
        check_event(tuple(x.shape[1:]), event, "This flow")
    return tuple(x.shape[:count])


def _broadcast(context: Context, leading: Shape) -> Context:
    """Return the context with a row for each row of the data."""
    rows = leading[-1] if leading else 1
    if context.structure is not None and rows != len(context.structure.owner):
        raise ShapeError(f"The batch has {rows} rows, its GraphBatch has {len(context.structure.owner)} nodes.")
    condition = context.condition
    if condition is None or len(condition) == rows:
        return context
    if len(condition) != 1:
        raise ShapeError(
            f"The data have {rows} rows and the condition {len(condition)}: give one row of the condition for each row "
            "of the data, or one for all."
        )
    return with_condition(context, condition.expand(rows, *condition.shape[1:]))


@contextmanager
def blamed_on_weights(flow: Flow) -> Iterator[None]:
    """Say that weights are not finite where a layer could only say that its input was not."""
    try:
        yield
    except (DomainError, ConvergenceError) as error:
        refuse_broken_weights(flow, error)
        raise


def refuse_missing(flow: Flow, log_prob: Tensor) -> None:
    """Raise if likelihoods are NaN because weights are; missing values of the data (NaN) stay what they are.

    On an accelerator, and where gradients are recorded, nothing waits for values; a fit looks at its loss by itself.
    """
    if log_prob.device.type == "cpu" and not log_prob.requires_grad and bool(log_prob.isnan().any()):
        refuse_broken_weights(flow)


def refuse_broken_weights(flow: Flow, cause: Exception | None = None) -> None:
    """Raise `NonFiniteError` if weights of a flow are not finite, and name them."""
    if broken := broken_weights(flow):
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise NonFiniteError(
            f"The weights '{broken[0]}'{more} of this flow are NaN or infinite, so it has no likelihood and no draws. "
            "Either weights have still to be loaded into it, or its fit went wrong: load weights from before that, or "
            "build and fit the flow again, with a smaller learning rate."
        ) from cause


def broken_weights(flow: nn.Module, state: Mapping[str, Tensor] | None = None) -> list[str]:
    """Return the names of weights that are not finite; buffers may be infinite, as limits are that are not set."""
    state = flow.state_dict() if state is None else state
    trained = {name for name, _ in flow.named_parameters()}
    bad = {name: ~tensor.isfinite() if name in trained else tensor.isnan() for name, tensor in state.items()}
    return [name for name, where in bad.items() if bool(where.any())]


@contextmanager
def refusing_hollow_constants(flow: nn.Module) -> Iterator[None]:
    """Refuse a block that gives constants, which were on no device, memory of any content.

    Raises:
        UnsupportedError: naming one of them.
    """
    hollow = [
        (part, name, prefix)
        for prefix, part in flow.named_modules()
        for name in part._non_persistent_buffers_set
        if (constant := part._buffers.get(name)) is not None and constant.is_meta and constant.numel()
    ]
    yield
    for part, name, prefix in hollow:
        if not part.get_buffer(name).is_meta:
            raise UnsupportedError(
                f"This flow was built on the device 'meta', and has constants that no state dict holds, such as "
                f"'{prefix}.{name}': to_empty() leaves them as whatever is in memory. Build it on its device."
            )
