"""likelify: exact-likelihood density models.

Every linear map can become an invertible layer, and every ordinary network can get a likelihood. The names below are
loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from likelify._version import __version__

# Public name -> module that defines it (None: the module of that name itself).
_HOMES: dict[str, str | None] = {
    "exp_action": "linalg.expm",
    "Action": "linalg.expm",
    "LinearMap": "linalg.maps",
    "Dense": "linalg.dense",
    "Diagonal": "linalg.dense",
    "Skew": "linalg.dense",
    "Function": "linalg.function",
    "ConvMap": "linalg.conv",
    "GraphMap": "linalg.graph",
    "SetMap": "linalg.equivariant",
    "PairMap": "linalg.equivariant",
    "rotation_kernel": "linalg.equivariant",
    "rotate_features": "linalg.equivariant",
    "Stored": "linalg.expm",
    "Recompute": "linalg.expm",
    "Unrolled": "linalg.expm",
    "Transform": "transforms.core",
    "Chain": "transforms.core",
    "Inverse": "transforms.core",
    "Conjugate": "transforms.core",
    "Exponential": "transforms.exponential.layers",
    "conv_exponential": "transforms.exponential.layers",
    "orthogonal_convolution": "transforms.exponential.layers",
    "dense_exponential": "transforms.exponential.layers",
    "graph_exponential": "transforms.exponential.layers",
    "equivariant_exponential": "transforms.exponential.layers",
    "linear_exponential": "transforms.exponential.layers",
    "rotation": "transforms.exponential.rotations",
    "Orthogonal": "transforms.exponential.rotations",
    "Cayley": "transforms.exponential.rotations",
    "Householder": "transforms.exponential.rotations",
    "ActNorm": "transforms.elementwise",
    "Affine": "transforms.elementwise",
    "Logit": "transforms.elementwise",
    "Sigmoid": "transforms.elementwise",
    "Softplus": "transforms.elementwise",
    "Tanh": "transforms.elementwise",
    "ChannelSpline": "transforms.splines",
    "FittedMarginal": "transforms.marginal",
    "Conv1x1": "transforms.mixing.conv1x1",
    "two_conv1x1": "transforms.mixing.conv1x1",
    "Woodbury": "transforms.mixing.woodbury",
    "woodbury_conv": "transforms.mixing.woodbury",
    "CircularConv": "transforms.mixing.circular",
    "periodic_conv": "transforms.mixing.circular",
    "AutoregressiveConv": "transforms.mixing.emerging",
    "emerging_conv": "transforms.mixing.emerging",
    "TriangularResidual": "transforms.sylvester.triangular",
    "TriangularSolution": "transforms.sylvester.triangular",
    "ScalarResidual": "transforms.sylvester.scalar",
    "TanhResidual": "transforms.sylvester.scalar",
    "FreeTanhResidual": "transforms.sylvester.scalar",
    "LipschitzResidual": "transforms.residual.layer",
    "with_log_det": "transforms.residual.layer",
    "Squeeze": "transforms.reshape",
    "Flatten": "transforms.reshape",
    "Reshape": "transforms.reshape",
    "Permute": "transforms.reshape",
    "Flip": "transforms.reshape",
    "Coupling": "transforms.coupling",
    "AffineBijector": "transforms.coupling",
    "SplineBijector": "transforms.coupling",
    "ChannelSplit": "transforms.coupling",
    "MaskSplit": "transforms.coupling",
    "Slice": "transforms.surjections.dimension",
    "LeakyReLU": "transforms.surjections.activation",
    "PReLU": "transforms.surjections.activation",
    "ELU": "transforms.surjections.activation",
    "Abs": "transforms.surjections.activation",
    "ReLU": "transforms.surjections.activation",
    "NoisyReLU": "transforms.surjections.activation",
    "SharedSpline": "transforms.splines",
    "ChannelAffine": "transforms.elementwise",
    "Identity": "transforms.reshape",
    "Augment": "transforms.surjections.dimension",
    "Pad": "transforms.surjections.dimension",
    "Crop": "transforms.surjections.dimension",
    "Repeat": "transforms.surjections.copying",
    "Sum": "transforms.surjections.copying",
    "Unfold": "transforms.surjections.copying",
    "FoldSum": "transforms.surjections.copying",
    "linear": "transforms.surjections.linear",
    "FreeLinear": "transforms.surjections.fibre",
    "convolution": "transforms.surjections.convolution",
    "transposed_convolution": "transforms.surjections.convolution",
    "Parallel": "transforms.surjections.combinators",
    "residual": "transforms.surjections.combinators",
    "concat": "transforms.surjections.combinators",
    "max_pool": "transforms.surjections.pooling",
    "average_pool": "transforms.surjections.pooling",
    "global_average_pool": "transforms.surjections.pooling",
    "global_max_pool": "transforms.surjections.pooling",
    "upsample_nearest": "transforms.surjections.pooling",
    "Dequantize": "transforms.dequantize",
    "LatentVariable": "transforms.latent",
    "planar": "transforms.sylvester.factories",
    "sylvester": "transforms.sylvester.factories",
    "generalized_sylvester": "transforms.sylvester.factories",
    "conv_sylvester": "transforms.sylvester.factories",
    "graph_sylvester": "transforms.sylvester.factories",
    "Distribution": "distributions",
    "Normal": "distributions",
    "ConditionalNormal": "distributions",
    "ChannelNoise": "distributions",
    "RectifiedNormal": "distributions",
    "ConditionalCategorical": "distributions",
    "Flow": "flows",
    "Estimate": "flows",
    "Certificate": "flows",
    "GraphBatch": "structure",
    "Context": "structure",
    "seeded": "seeding",
    "LikelifyError": "errors",
    "Run": "fitting.run",
    "errors": None,
    "flowify": "flowification.convert",
    "nets": None,
    "testing": None,
    "zoo": None,
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'likelify' has no attribute {name!r}")
    home = _HOMES[name]
    value = import_module(f"likelify.{name}") if home is None else getattr(import_module(f"likelify.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from likelify import errors as errors
    from likelify import nets as nets
    from likelify import testing as testing
    from likelify import zoo as zoo
    from likelify.distributions import ChannelNoise as ChannelNoise
    from likelify.distributions import ConditionalCategorical as ConditionalCategorical
    from likelify.distributions import ConditionalNormal as ConditionalNormal
    from likelify.distributions import Distribution as Distribution
    from likelify.distributions import Normal as Normal
    from likelify.distributions import RectifiedNormal as RectifiedNormal
    from likelify.errors import LikelifyError as LikelifyError
    from likelify.fitting.run import Run as Run
    from likelify.flowification.convert import flowify as flowify
    from likelify.flows import Certificate as Certificate
    from likelify.flows import Estimate as Estimate
    from likelify.flows import Flow as Flow
    from likelify.linalg.conv import ConvMap as ConvMap
    from likelify.linalg.dense import Dense as Dense
    from likelify.linalg.dense import Diagonal as Diagonal
    from likelify.linalg.dense import Skew as Skew
    from likelify.linalg.equivariant import PairMap as PairMap
    from likelify.linalg.equivariant import SetMap as SetMap
    from likelify.linalg.equivariant import rotate_features as rotate_features
    from likelify.linalg.equivariant import rotation_kernel as rotation_kernel
    from likelify.linalg.expm import Action as Action
    from likelify.linalg.expm import Recompute as Recompute
    from likelify.linalg.expm import Stored as Stored
    from likelify.linalg.expm import Unrolled as Unrolled
    from likelify.linalg.expm import exp_action as exp_action
    from likelify.linalg.function import Function as Function
    from likelify.linalg.graph import GraphMap as GraphMap
    from likelify.linalg.maps import LinearMap as LinearMap
    from likelify.seeding import seeded as seeded
    from likelify.structure import Context as Context
    from likelify.structure import GraphBatch as GraphBatch
    from likelify.transforms.core import Chain as Chain
    from likelify.transforms.core import Conjugate as Conjugate
    from likelify.transforms.core import Inverse as Inverse
    from likelify.transforms.core import Transform as Transform
    from likelify.transforms.coupling import AffineBijector as AffineBijector
    from likelify.transforms.coupling import ChannelSplit as ChannelSplit
    from likelify.transforms.coupling import Coupling as Coupling
    from likelify.transforms.coupling import MaskSplit as MaskSplit
    from likelify.transforms.coupling import SplineBijector as SplineBijector
    from likelify.transforms.dequantize import Dequantize as Dequantize
    from likelify.transforms.elementwise import ActNorm as ActNorm
    from likelify.transforms.elementwise import Affine as Affine
    from likelify.transforms.elementwise import ChannelAffine as ChannelAffine
    from likelify.transforms.elementwise import Logit as Logit
    from likelify.transforms.elementwise import Sigmoid as Sigmoid
    from likelify.transforms.elementwise import Softplus as Softplus
    from likelify.transforms.elementwise import Tanh as Tanh
    from likelify.transforms.exponential.layers import Exponential as Exponential
    from likelify.transforms.exponential.layers import conv_exponential as conv_exponential
    from likelify.transforms.exponential.layers import dense_exponential as dense_exponential
    from likelify.transforms.exponential.layers import equivariant_exponential as equivariant_exponential
    from likelify.transforms.exponential.layers import graph_exponential as graph_exponential
    from likelify.transforms.exponential.layers import linear_exponential as linear_exponential
    from likelify.transforms.exponential.layers import orthogonal_convolution as orthogonal_convolution
    from likelify.transforms.exponential.rotations import Cayley as Cayley
    from likelify.transforms.exponential.rotations import Householder as Householder
    from likelify.transforms.exponential.rotations import Orthogonal as Orthogonal
    from likelify.transforms.exponential.rotations import rotation as rotation
    from likelify.transforms.latent import LatentVariable as LatentVariable
    from likelify.transforms.marginal import FittedMarginal as FittedMarginal
    from likelify.transforms.mixing.circular import CircularConv as CircularConv
    from likelify.transforms.mixing.circular import periodic_conv as periodic_conv
    from likelify.transforms.mixing.conv1x1 import Conv1x1 as Conv1x1
    from likelify.transforms.mixing.conv1x1 import two_conv1x1 as two_conv1x1
    from likelify.transforms.mixing.emerging import AutoregressiveConv as AutoregressiveConv
    from likelify.transforms.mixing.emerging import emerging_conv as emerging_conv
    from likelify.transforms.mixing.woodbury import Woodbury as Woodbury
    from likelify.transforms.mixing.woodbury import woodbury_conv as woodbury_conv
    from likelify.transforms.reshape import Flatten as Flatten
    from likelify.transforms.reshape import Flip as Flip
    from likelify.transforms.reshape import Identity as Identity
    from likelify.transforms.reshape import Permute as Permute
    from likelify.transforms.reshape import Reshape as Reshape
    from likelify.transforms.reshape import Squeeze as Squeeze
    from likelify.transforms.residual.layer import LipschitzResidual as LipschitzResidual
    from likelify.transforms.residual.layer import with_log_det as with_log_det
    from likelify.transforms.splines import ChannelSpline as ChannelSpline
    from likelify.transforms.splines import SharedSpline as SharedSpline
    from likelify.transforms.surjections.activation import ELU as ELU
    from likelify.transforms.surjections.activation import Abs as Abs
    from likelify.transforms.surjections.activation import LeakyReLU as LeakyReLU
    from likelify.transforms.surjections.activation import NoisyReLU as NoisyReLU
    from likelify.transforms.surjections.activation import PReLU as PReLU
    from likelify.transforms.surjections.activation import ReLU as ReLU
    from likelify.transforms.surjections.combinators import Parallel as Parallel
    from likelify.transforms.surjections.combinators import concat as concat
    from likelify.transforms.surjections.combinators import residual as residual
    from likelify.transforms.surjections.convolution import convolution as convolution
    from likelify.transforms.surjections.convolution import transposed_convolution as transposed_convolution
    from likelify.transforms.surjections.copying import FoldSum as FoldSum
    from likelify.transforms.surjections.copying import Repeat as Repeat
    from likelify.transforms.surjections.copying import Sum as Sum
    from likelify.transforms.surjections.copying import Unfold as Unfold
    from likelify.transforms.surjections.dimension import Augment as Augment
    from likelify.transforms.surjections.dimension import Crop as Crop
    from likelify.transforms.surjections.dimension import Pad as Pad
    from likelify.transforms.surjections.dimension import Slice as Slice
    from likelify.transforms.surjections.fibre import FreeLinear as FreeLinear
    from likelify.transforms.surjections.linear import linear as linear
    from likelify.transforms.surjections.pooling import average_pool as average_pool
    from likelify.transforms.surjections.pooling import global_average_pool as global_average_pool
    from likelify.transforms.surjections.pooling import global_max_pool as global_max_pool
    from likelify.transforms.surjections.pooling import max_pool as max_pool
    from likelify.transforms.surjections.pooling import upsample_nearest as upsample_nearest
    from likelify.transforms.sylvester.factories import conv_sylvester as conv_sylvester
    from likelify.transforms.sylvester.factories import generalized_sylvester as generalized_sylvester
    from likelify.transforms.sylvester.factories import graph_sylvester as graph_sylvester
    from likelify.transforms.sylvester.factories import planar as planar
    from likelify.transforms.sylvester.factories import sylvester as sylvester
    from likelify.transforms.sylvester.scalar import FreeTanhResidual as FreeTanhResidual
    from likelify.transforms.sylvester.scalar import ScalarResidual as ScalarResidual
    from likelify.transforms.sylvester.scalar import TanhResidual as TanhResidual
    from likelify.transforms.sylvester.triangular import TriangularResidual as TriangularResidual
    from likelify.transforms.sylvester.triangular import TriangularSolution as TriangularSolution
