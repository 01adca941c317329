"""What is looked at before anything is fitted or measured, so that it is said in words."""

from __future__ import annotations

from typing import Any

from likelify.data import Source
from likelify.errors import ConfigError, DataError, NonFiniteError, UnsupportedError
from likelify.fitting.weights import broken_weights, listed
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


def check_fit(flow: Flow, source: Source, *, conditional: bool) -> None:
    """Refuse a fit that cannot be: nothing to fit, or labels that are missing.

    Raises:
        ConfigError: if the flow has no parameters.
        DataError: if labels are asked of data without them.
    """
    if conditional and source.classes is None:
        raise DataError(f"The source '{source.name}' has no labels, so a class-conditional model cannot be fitted.")
    if next(flow.parameters(), None) is None:
        raise ConfigError("The flow has no parameters, so there is nothing to fit; flow.initialize(x) may be enough.")
