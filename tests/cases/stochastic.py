"""Cases of stochastic layers."""

from torch import nn

import likelify as lk
from likelify import nets, transforms
from tests.cases.common import LayerCase, integers, normal, on_graphs


def _gaussians(context: int = 0) -> lk.LatentVariable:
    posterior = lk.ConditionalNormal(nets.MLP(3 + context, 4, (8,)))
    return lk.LatentVariable(posterior, lk.ConditionalNormal(nets.MLP(2 + context, 6, (8,))), (2,))


def _flow_posterior() -> lk.LatentVariable:
    """A Gaussian pushed through an amortised flow, on integer images; encoder shared by base and layers."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh())
    layers = lk.Chain([lk.sylvester(2, reflections=1, context_features=5), transforms.planar(2, context_features=5)])
    posterior = lk.Flow(lk.ConditionalNormal(nn.Linear(5, 4)), lk.Inverse(layers), encoder=encoder)
    decoder = nn.Sequential(nn.Linear(2, 3 * 4), nn.Unflatten(1, (3, 2, 2)))
    return lk.LatentVariable(posterior, lk.distributions.ConditionalCategorical(decoder, 3), (2,))


def _image_latents() -> lk.LatentVariable:
    """Latents that are images, with a convolutional posterior that reads the features at their place."""
    layer = lk.conv_sylvester(2, hidden=4, context_features=4)
    posterior = lk.Flow(
        lk.ConditionalNormal(nn.Conv2d(4, 4, 1)), lk.Inverse(layer), encoder=nn.Conv2d(1, 4, 2, stride=2)
    )
    observation = lk.distributions.ConditionalCategorical(nn.ConvTranspose2d(2, 5, 2, stride=2), 5)
    return lk.LatentVariable(posterior, observation, (2, 2, 1))


LAYERS: dict[str, LayerCase] = {
    "latent-variable": LayerCase(_gaussians, lambda: normal(3, 3), lk.LatentVariable),
    "latent-variable-condition": LayerCase(
        lambda: _gaussians(2), lambda: normal(3, 3), lk.LatentVariable, lambda: normal(3, 2)
    ),
    "latent-variable-graphs": LayerCase(_gaussians, lambda: normal(5, 3), lk.LatentVariable, on_graphs),
    "latent-variable-flow-posterior": LayerCase(
        _flow_posterior, lambda: integers(3, 1, 2, 2, levels=3), lk.LatentVariable
    ),
    "latent-variable-image-latents": LayerCase(
        _image_latents, lambda: integers(3, 1, 4, 2, levels=5), lk.LatentVariable
    ),
    "latent-variables-chain": LayerCase(
        lambda: lk.Chain([_gaussians(), lk.LatentVariable(*_linear_pair(2, 1), (1,))]), lambda: normal(3, 3), lk.Chain
    ),
}


def _linear_pair(size: int, latent: int) -> tuple[lk.ConditionalNormal, lk.ConditionalNormal]:
    return lk.ConditionalNormal(nn.Linear(size, 2 * latent)), lk.ConditionalNormal(nn.Linear(latent, 2 * size))
