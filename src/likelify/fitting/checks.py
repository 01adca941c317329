"""What is looked at before anything is fitted or measured, so that it is said in words."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from likelify.data import Source
from likelify.data.screening import dependent_columns, rounded_columns
from likelify.errors import ConfigError, DataError, NonFiniteError, UnsupportedError
from likelify.fitting.weights import NAMED, broken_weights, listed
from likelify.flows import Flow


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
    if broken := broken_weights(flow):
        raise NonFiniteError(
            f"The weights {listed(broken)} of the flow are not finite, so no likelihood of it would be. Build it "
            "again, or load weights that are."
        )


def like(flow: Flow) -> Tensor:
    """Return a tensor with the device and the dtype of a flow; an empty one if it has no tensors."""
    tensors = chain(flow.parameters(), flow.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))


def check_fit(flow: Flow, source: Source, *, conditional: bool) -> None:
    """Refuse a fit that cannot be: nothing to fit, labels that are missing, columns that the flow cannot tell apart.

    Raises:
        ConfigError: if the flow has no parameters.
        DataError: if labels are asked of data without them, or columns follow from others or lose their digits.
    """
    if conditional and source.classes is None:
        raise DataError(f"The source '{source.name}' has no labels, so a class-conditional model cannot be fitted.")
    if next(flow.parameters(), None) is None:
        raise ConfigError("The flow has no parameters, so there is nothing to fit; flow.initialize(x) may be enough.")
    check_columns(source)
    dtype = like(flow).dtype
    if not flow.transform.takes_float64 and (names := rounded_columns(source, dtype)):
        raise DataError(
            f"In {str(dtype).removeprefix('torch.')}, in which the flow computes, the column {listed(names)} of "
            f"'{source.name}' loses its digits. Put lk.transforms.Columns({source.event_shape[0]}) in front, which "
            "takes float64 and standardises, or make the flow one of float64: flow.double()."
        )


def check_columns(source: Source) -> None:
    """Refuse a table of which there is no density.

    Raises:
        DataError: if a column follows exactly from others, or has one value only.
    """
    if found := dependent_columns(source):
        more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise DataError(
            f"'{source.name}' has columns that follow from others, so its rows have no density, and a fit would only "
            f"make the likelihood grow without end: {'; '.join(map(str, found[:NAMED]))}{more}. Leave one of each out."
        )
