"""All laws of a layer at once."""

from torch import Tensor

from likelify.structure import ContextLike
from likelify.testing.batches import check_no_rows, check_rows
from likelify.testing.derivatives import check_forward_mode, check_gradients, check_second_order
from likelify.testing.threads import check_threads
from likelify.testing.transforms import check_transform
from likelify.transforms.core import Transform


def check_layer(transform: Transform, x: Tensor, context: ContextLike = None, *, tol: float = 1e-9) -> list[str]:
    """Check every law of a layer that needs no more than the layer: one law alone does not see every fault.

    These are `check_transform`, `check_rows`, `check_no_rows`, `check_gradients`, `check_second_order`,
    `check_forward_mode` and `check_threads`. What it saves is looked at by `check_saving`, which needs to know how the
    layer is made, and graphs by `check_permutation_equivariance`.

    Args:
        transform: the layer, in double precision, with its parameters moved from their start (`randomize`).
        x: data rows `(rows, *event)`, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one.
        tol: allowed error of a round trip.

    Returns:
        What the layer refuses of second derivatives and of forward mode, a sentence each.

    Raises:
        AssertionError: with what was observed, if a law is broken.
    """
    check_transform(transform, x, context, tol=tol)
    check_rows(transform, x, context)
    check_no_rows(transform, x, context)
    check_gradients(transform, x, context)
    refused = check_second_order(transform, x, context) + check_forward_mode(transform, x, context)
    check_threads(transform, x, context)
    return refused
