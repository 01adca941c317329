"""A layer turned round, and a layer in another basis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from likelify.errors import UnsupportedError
from likelify.shapes import Shape
from likelify.structure import ContextLike
from likelify.transforms import watching
from likelify.transforms.core import Composite, Transform, derived, require_transforms


class Inverse(Composite, checks=False):
    """The inverse of a layer, as a layer: its `forward` is the other's `inverse`.

    `initialize` fits nothing in the inner layer, whose statistics are those of its own input.
    """

    random_forward = derived(lambda layer: layer.transform.random_inverse)
    random_inverse = derived(lambda layer: layer.transform.random_forward)
    # Atoms come from the way to the latent, so only from layers that are turned round twice.
    has_atoms = derived(
        lambda layer: any(isinstance(part, Inverse) and part.transform.has_atoms for part in layer.transform.modules())
    )
    takes_integers = takes_float64 = takes_missing = False
    domain = derived(lambda layer: layer.transform.image)
    image = derived(lambda layer: layer.transform.domain)
    takes = derived(lambda layer: layer.transform.takes if layer.transform.keeps_shape else layer.transform.gives)
    gives = derived(lambda layer: layer.transform.takes)

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        require_transforms("Inverse", transform)
        self.transform = transform

    def parts(self) -> Sequence[Transform]:
        """Return the inner layer."""
        return [self.transform]

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Apply the inverse of the inner layer."""
        return self.transform.inverse(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Apply the inner layer."""
        return self.transform(z, context)

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Apply the noise-free inverse of the inner layer."""
        return self.transform.mean_inverse(x, context)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Apply the inner layer without noise."""
        return self.transform.mean_forward(z, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the inner layer's data shape."""
        return self.transform.data_shape(in_shape)

    def data_shape(self, latent_shape: Shape) -> Shape:
        """Return the inner layer's latent shape."""
        return self.transform.out_shape(latent_shape)


class Conjugate(Composite, checks=False):
    r"""A layer in another basis: `x -> W^-1(f(W(x)))`.

    The contributions of all three parts are added, so `W` may be any bijection; for a linear `W` its two terms cancel.
    With a triangular residual for `f` this is the generalized Sylvester flow (Hoogeboom et al. 2020, equation 9).

    Args:
        basis: the bijection `W`.
        transform: the layer `f`, which must keep the shape.
    """

    def __init__(self, basis: Transform, transform: Transform) -> None:
        super().__init__()
        require_transforms("Conjugate", basis, transform)
        if basis.random_forward or basis.random_inverse:
            raise UnsupportedError(f"The basis of Conjugate must be a bijection; {type(basis).__name__} draws noise.")
        self.basis = basis
        self.transform = transform

    def parts(self) -> Sequence[Transform]:
        """Return the basis and the layer in it."""
        return [self.basis, self.transform]

    def confine(self, before: Transform | None) -> Transform | None:
        """Return what keeps elements in the other basis within its image, if that fills the space."""
        found = self.transform.confine(self.basis.confine(before))
        return found if self.basis.fills_space or self.basis.moves_elements else None

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Change the basis, apply the layer, change back."""
        return self._sandwich(x, context, inverse=False)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Change the basis, undo the layer, change back."""
        return self._sandwich(z, context, inverse=True)

    def _sandwich(self, x: Tensor, context: ContextLike, *, inverse: bool) -> tuple[Tensor, Tensor]:
        u, into = self.basis(x, context)
        v, inner = self.transform.inverse(u, context) if inverse else self.transform(u, context)
        z, out = self.basis.inverse(v, context) if inverse else watching.aside(self.basis.inverse, v, context)
        return z, into + inner + out

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Apply the noise-free layer in the other basis."""
        return self.basis.inverse(self.transform.mean_forward(self.basis(x, context)[0], context), context)[0]

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Undo the noise-free layer in the other basis."""
        return self.basis.inverse(self.transform.mean_inverse(self.basis(z, context)[0], context), context)[0]

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the basis, then the layer inside it."""
        v = self.transform.initialize(self.basis.initialize(x, context), context)
        with torch.no_grad():
            return self.basis.inverse(v, context)[0]
