"""What is looked at before anything is fitted or measured, so that it is said in words."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from likelify.data import Batch, Source, SplitName
from likelify.data.facts import WORDS
from likelify.data.graphs import centred_features
from likelify.data.remainders import nearly_dependent_columns
from likelify.data.screening import dependent_columns, repeated_features, rounded_columns, some_rows
from likelify.door import refuse_broken_weights, tensor_of
from likelify.errors import ConfigError, DataError, LikelifyError, LikelifyWarning, UnsupportedError
from likelify.fitting.weights import NAMED, listed
from likelify.flows import Flow
from likelify.schema import numbered_columns
from likelify.seeding import seeded
from likelify.transforms import Centre, Chain, Columns

# Training rows that are looked at for values far from all others.
FRONT_ROWS = 2**16
# Training graphs that are looked at for means of zero.
CENTRED_GRAPHS = 256


def check_flow(flow: Any) -> None:
    """Refuse what is no flow, or a flow with weights that are not finite.

    Raises:
        UnsupportedError: if it is no `Flow`.
        NonFiniteError: if a weight is infinite or NaN; the message names it.
    """
    if not isinstance(flow, Flow):
        raise UnsupportedError(
            f"A {type(flow).__name__} is no density. Give a Flow: lk.Flow(base, transform); of a network, "
            "lk.Flow(base, lk.flowify(network, example)), or zoo.converted_flow."
        )
    refuse_broken_weights(flow)


def read_for(flow: Flow, source: Source, split: SplitName, indices: Tensor) -> Batch:
    """Read items for a flow, see `for_flow`."""
    return for_flow(flow, source.read(split, indices))


def for_flow(flow: Flow, batch: Batch) -> Batch:
    """Return items as a flow takes them: on its device, and real numbers in its dtype.

    A flow whose first layer takes float64 whatever the dtype of the others (`transforms.Columns`) gets what the source
    has.
    """
    weight = tensor_of(flow)
    if weight is None:
        return batch
    keeps = flow.transform.takes_float64 and weight.device.type != "mps"
    return batch.to(weight.device, batch.x.dtype if keeps else weight.dtype)


def check_condition(flow: Flow, source: Source, split: SplitName, *, conditional: bool) -> None:
    """Refuse labels that nothing reads, and a flow that needs a condition and gets none.

    Raises:
        ConfigError: if `conditional` and the flow do not belong together.
        DataError: if labels are asked of data without them.
    """
    if conditional and source.classes is None:
        raise DataError(
            f"The source '{source.name}' has no labels, so there is nothing to give to a conditional model."
        )
    if conditional and not flow.reads_condition:
        raise ConfigError(
            f"conditional=True gives the labels of '{source.name}' to the flow, and no part of it reads them. Leave it "
            "out, or build the flow with context_features= (models of the zoo: classes=)."
        )
    if conditional or not flow.reads_condition:
        return
    batch = read_for(flow, source, split, torch.arange(1))
    error = _refusal(flow, batch)
    # What fails with a condition as well is not for the lack of one, and for those who use the flow to meet.
    if error is not None and _refusal(flow, _with_labels(flow, batch), conditional=True) is None:
        remedy = "Its labels are given with conditional=True." if source.classes else "It has no labels to give."
        raise ConfigError(
            f"The flow reads a condition and does not work without one, and '{source.name}' is used without its "
            f"labels. {remedy} ({' '.join(str(error).split())})"
        ) from error


def _refusal(flow: Flow, batch: Batch, *, conditional: bool = False) -> Exception | None:
    """Return the error that a flow gives to a batch, if it does."""
    try:
        with seeded(0), torch.no_grad():
            flow.elbo(batch.x, batch.context(conditional=conditional))
    except (LikelifyError, TypeError) as error:
        return error
    return None


def _with_labels(flow: Flow, batch: Batch) -> Batch:
    """Return a batch with its labels, or with something in their place that has the width of the condition."""
    if batch.labels is not None:
        return batch
    widths = [width for part in flow.modules() if (width := getattr(part, "context_features", 0))]
    made = torch.zeros(len(batch), *widths[:1]) if flow.encoder is None else torch.zeros(len(batch), dtype=torch.long)
    return replace(batch, labels=made.to(batch.x.device))


def check_fit(flow: Flow, source: Source, *, conditional: bool) -> None:
    """Refuse a fit that cannot be: nothing to fit, a condition amiss, columns that the flow cannot tell apart.

    Raises:
        ConfigError: if the flow has no parameters to train, and for a condition that is missing or not read, as
            `check_condition` says.
        DataError: if labels are asked of data without them, columns follow from others or lose their digits, or graphs
            are centred and the flow is not made for that.

    Warns:
        LikelifyWarning: if columns follow from others but for their last digits.
    """
    check_condition(flow, source, "train", conditional=conditional)
    if next(flow.parameters(), None) is None:
        raise ConfigError("The flow has no parameters, so there is nothing to fit; flow.initialize(x) may be enough.")
    if not any(parameter.requires_grad for parameter in flow.parameters()):
        raise ConfigError(
            "All parameters of the flow are frozen (requires_grad is False), so there is nothing to fit; let those be "
            "trained that should be: parameter.requires_grad_()."
        )
    check_columns(source)
    check_centres(flow, source)
    weight = tensor_of(flow)
    dtype = torch.get_default_dtype() if weight is None else weight.dtype
    if not flow.transform.takes_float64 and (names := rounded_columns(source, dtype)):
        raise DataError(
            f"In {str(dtype).removeprefix('torch.')}, in which the flow computes, the column {listed(names)} of "
            f"'{source.name}' loses its digits. Put lk.transforms.Columns({source.event_shape[0]}) in front, which "
            "takes float64 and standardises, or make the flow one of float64: flow.double()."
        )
    _warn_of_remainders(source)


# What follows from others in items of a kind, and what to do about it.
FOLLOWING = {
    "table": (
        "columns",
        "Leave one of each out: --dependent drop; or keep them as what they are, functions of the others: --dependent "
        "function. In Python these are as_source(..., dependent='function') and fit_run(..., "
        "options=lk.data.SourceOptions(dependent='function'))",
    ),
    "graph": (
        "features of nodes",
        "Leave one of each out: --drop of a table of nodes (in Python: drop= or columns=), out of x else",
    ),
    "sequence": (
        "values",
        "Leave such times or channels out; give counts and rounded values as integers, with --levels",
    ),
}


def check_columns(source: Source) -> None:
    """Refuse a table, or sequences of real numbers, of which there is no density.

    Raises:
        DataError: if a column, or the value at a time, follows exactly from others or is always the same.
    """
    if found := dependent_columns(source):
        more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
        what, remedy = FOLLOWING[source.kind]
        raise DataError(
            f"'{source.name}' has {what} that follow from others, so its {WORDS[source.kind][1]} have no density, and "
            f"a fit would only make the likelihood grow without end: {'; '.join(map(str, found[:NAMED]))}{more}. "
            f"{remedy}."
        )
    for name, values in repeated_features(source).items():
        shown = ", ".join(f"{value:g}" for value in values[:NAMED])
        warnings.warn(
            f"'{source.name}': the feature {name} of nodes has {len(values)} values alone ({shown}), as classes and "
            "counts have. Models of graphs are densities, which grow without end where values repeat: their "
            "likelihoods then say nothing. Leave it out, or add noise as wide as its steps.",
            LikelifyWarning,
            stacklevel=3,
        )


def check_centres(flow: Flow, source: Source) -> None:
    """Refuse graphs with features whose mean is zero in every graph, if the flow does not take that into account.

    Their density is one of fewer dimensions, and any other grows without end where means are.

    Raises:
        DataError: naming the features.
    """
    if source.kind != "graph" or any(isinstance(part, Centre) and part.centre == "dropped" for part in flow.modules()):
        return
    batch = source.read("train", torch.arange(min(CENTRED_GRAPHS, source.size("train"))))
    if batch.structure is None or batch.x.ndim != 2:
        return
    found = centred_features(batch.x, batch.structure.sizes).tolist()
    if not any(found):
        return
    names = source.columns or tuple(f"number {place + 1}" for place in range(len(found)))
    remedy = "Leave the means of the graphs in, or give each graph a random one."
    if all(found) and len(found) > 1:
        remedy = (
            "For positions without a place in space there is the model point-flow: --model point-flow --set "
            "symmetry=rotations --set centre=dropped; in a flow of your own begin with lk.transforms.Centre."
        )
    which = listed([name for name, each in zip(names, found, strict=True) if each])
    raise DataError(
        f"'{source.name}': the mean of {which} is zero in every graph, so that the last node follows from the others "
        f"and the likelihood of this model would grow without end. {remedy}"
    )


def check_front(flow: Flow, source: Source) -> None:
    """Refuse a table with values that the layer in front cannot standardise, before it is fitted to them.

    Raises:
        DataError: naming all columns that have such values.
    """
    front = flow.transform[0] if isinstance(flow.transform, Chain) and len(flow.transform) else flow.transform
    if not isinstance(front, Columns) or source.kind != "table":
        return
    rows = read_for(flow, source, "train", torch.from_numpy(some_rows(source.size("train"), FRONT_ROWS))).x
    found: dict[str, list[str]] = {}
    names = source.columns or numbered_columns(rows.shape[1])
    for place, said in front.faults(rows).items():
        found.setdefault(said, []).append(names[place])
    if found:
        each = ". ".join(f"column {listed(names)} {said}" for said, names in found.items())
        raise DataError(
            f"'{source.name}', {each}. The marginals of the model table-flow follow such values: --model table-flow; "
            f"in Python lk.zoo.build('table-flow', event_shape={rows.shape[1]})."
        )


def _warn_of_remainders(source: Source) -> None:
    if found := nearly_dependent_columns(source):
        more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
        warnings.warn(
            f"'{source.name}' has columns that follow from others but for their last digits: "
            f"{'; '.join(map(str, found[:NAMED]))}{more}. Their density would only describe the rounding, or noise as "
            "small, and grows without end as this gets finer. Leave one of each out.",
            LikelifyWarning,
            stacklevel=4,
        )
