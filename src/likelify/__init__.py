"""likelify: exact-likelihood density models.

Every linear map can become an invertible layer, and every ordinary network can get a likelihood. The names below are
loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

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
    "Exponential": "transforms.exponential",
    "conv_exponential": "transforms.exponential",
    "orthogonal_convolution": "transforms.exponential",
    "dense_exponential": "transforms.exponential",
    "graph_exponential": "transforms.exponential",
    "equivariant_exponential": "transforms.exponential",
    "linear_exponential": "transforms.exponential",
    "rotation": "transforms.rotations",
    "Orthogonal": "transforms.rotations",
    "Cayley": "transforms.rotations",
    "Householder": "transforms.rotations",
    "ActNorm": "transforms.elementwise",
    "Affine": "transforms.elementwise",
    "Logit": "transforms.elementwise",
    "Sigmoid": "transforms.elementwise",
    "Softplus": "transforms.elementwise",
    "Tanh": "transforms.elementwise",
    "ChannelSpline": "transforms.splines",
    "FittedMarginal": "transforms.marginal",
    "Conv1x1": "transforms.mixing",
    "two_conv1x1": "transforms.mixing",
    "Woodbury": "transforms.mixing",
    "woodbury_conv": "transforms.mixing",
    "PeriodicConv": "transforms.mixing",
    "AutoregressiveConv": "transforms.emerging",
    "emerging_conv": "transforms.emerging",
    "TriangularResidual": "transforms.triangular",
    "TriangularSolution": "transforms.triangular",
    "ScalarResidual": "transforms.triangular",
    "TanhResidual": "transforms.triangular",
    "FreeTanhResidual": "transforms.triangular",
    "LipschitzResidual": "transforms.residual",
    "with_log_det": "transforms.residual",
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
    "Slice": "transforms.dimension",
    "LeakyReLU": "transforms.activation",
    "PReLU": "transforms.activation",
    "ELU": "transforms.activation",
    "Abs": "transforms.activation",
    "ReLU": "transforms.activation",
    "NoisyReLU": "transforms.activation",
    "SharedSpline": "transforms.splines",
    "ChannelAffine": "transforms.elementwise",
    "Identity": "transforms.reshape",
    "Augment": "transforms.dimension",
    "Pad": "transforms.dimension",
    "Crop": "transforms.dimension",
    "Repeat": "transforms.copying",
    "Sum": "transforms.copying",
    "Unfold": "transforms.copying",
    "FoldSum": "transforms.copying",
    "linear": "transforms.linear",
    "FreeLinear": "transforms.fibre",
    "CircularConv": "transforms.fibre",
    "convolution": "transforms.convolution",
    "transposed_convolution": "transforms.convolution",
    "Parallel": "transforms.combinators",
    "residual": "transforms.combinators",
    "concat": "transforms.combinators",
    "max_pool": "transforms.pooling",
    "average_pool": "transforms.pooling",
    "global_average_pool": "transforms.pooling",
    "global_max_pool": "transforms.pooling",
    "upsample_nearest": "transforms.pooling",
    "Dequantize": "transforms.dequantize",
    "LatentVariable": "transforms.stochastic",
    "planar": "transforms.sylvester",
    "sylvester": "transforms.sylvester",
    "generalized_sylvester": "transforms.sylvester",
    "conv_sylvester": "transforms.sylvester",
    "graph_sylvester": "transforms.sylvester",
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
    "Run": "fit.run",
    "errors": None,
    "flowify": None,
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
    from likelify.fit.run import Run as Run
    from likelify.flowify.convert import flowify as flowify
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
    from likelify.transforms.activation import ELU as ELU
    from likelify.transforms.activation import Abs as Abs
    from likelify.transforms.activation import LeakyReLU as LeakyReLU
    from likelify.transforms.activation import NoisyReLU as NoisyReLU
    from likelify.transforms.activation import PReLU as PReLU
    from likelify.transforms.activation import ReLU as ReLU
    from likelify.transforms.combinators import Parallel as Parallel
    from likelify.transforms.combinators import concat as concat
    from likelify.transforms.combinators import residual as residual
    from likelify.transforms.convolution import convolution as convolution
    from likelify.transforms.convolution import transposed_convolution as transposed_convolution
    from likelify.transforms.copying import FoldSum as FoldSum
    from likelify.transforms.copying import Repeat as Repeat
    from likelify.transforms.copying import Sum as Sum
    from likelify.transforms.copying import Unfold as Unfold
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
    from likelify.transforms.dimension import Augment as Augment
    from likelify.transforms.dimension import Crop as Crop
    from likelify.transforms.dimension import Pad as Pad
    from likelify.transforms.dimension import Slice as Slice
    from likelify.transforms.elementwise import ActNorm as ActNorm
    from likelify.transforms.elementwise import Affine as Affine
    from likelify.transforms.elementwise import ChannelAffine as ChannelAffine
    from likelify.transforms.elementwise import Logit as Logit
    from likelify.transforms.elementwise import Sigmoid as Sigmoid
    from likelify.transforms.elementwise import Softplus as Softplus
    from likelify.transforms.elementwise import Tanh as Tanh
    from likelify.transforms.emerging import AutoregressiveConv as AutoregressiveConv
    from likelify.transforms.emerging import emerging_conv as emerging_conv
    from likelify.transforms.exponential import Exponential as Exponential
    from likelify.transforms.exponential import conv_exponential as conv_exponential
    from likelify.transforms.exponential import dense_exponential as dense_exponential
    from likelify.transforms.exponential import equivariant_exponential as equivariant_exponential
    from likelify.transforms.exponential import graph_exponential as graph_exponential
    from likelify.transforms.exponential import linear_exponential as linear_exponential
    from likelify.transforms.exponential import orthogonal_convolution as orthogonal_convolution
    from likelify.transforms.fibre import CircularConv as CircularConv
    from likelify.transforms.fibre import FreeLinear as FreeLinear
    from likelify.transforms.linear import linear as linear
    from likelify.transforms.marginal import FittedMarginal as FittedMarginal
    from likelify.transforms.mixing import Conv1x1 as Conv1x1
    from likelify.transforms.mixing import PeriodicConv as PeriodicConv
    from likelify.transforms.mixing import Woodbury as Woodbury
    from likelify.transforms.mixing import two_conv1x1 as two_conv1x1
    from likelify.transforms.mixing import woodbury_conv as woodbury_conv
    from likelify.transforms.pooling import average_pool as average_pool
    from likelify.transforms.pooling import global_average_pool as global_average_pool
    from likelify.transforms.pooling import global_max_pool as global_max_pool
    from likelify.transforms.pooling import max_pool as max_pool
    from likelify.transforms.pooling import upsample_nearest as upsample_nearest
    from likelify.transforms.reshape import Flatten as Flatten
    from likelify.transforms.reshape import Flip as Flip
    from likelify.transforms.reshape import Identity as Identity
    from likelify.transforms.reshape import Permute as Permute
    from likelify.transforms.reshape import Reshape as Reshape
    from likelify.transforms.reshape import Squeeze as Squeeze
    from likelify.transforms.residual import LipschitzResidual as LipschitzResidual
    from likelify.transforms.residual import with_log_det as with_log_det
    from likelify.transforms.rotations import Cayley as Cayley
    from likelify.transforms.rotations import Householder as Householder
    from likelify.transforms.rotations import Orthogonal as Orthogonal
    from likelify.transforms.rotations import rotation as rotation
    from likelify.transforms.splines import ChannelSpline as ChannelSpline
    from likelify.transforms.splines import SharedSpline as SharedSpline
    from likelify.transforms.stochastic import LatentVariable as LatentVariable
    from likelify.transforms.sylvester import conv_sylvester as conv_sylvester
    from likelify.transforms.sylvester import generalized_sylvester as generalized_sylvester
    from likelify.transforms.sylvester import graph_sylvester as graph_sylvester
    from likelify.transforms.sylvester import planar as planar
    from likelify.transforms.sylvester import sylvester as sylvester
    from likelify.transforms.triangular import FreeTanhResidual as FreeTanhResidual
    from likelify.transforms.triangular import ScalarResidual as ScalarResidual
    from likelify.transforms.triangular import TanhResidual as TanhResidual
    from likelify.transforms.triangular import TriangularResidual as TriangularResidual
    from likelify.transforms.triangular import TriangularSolution as TriangularSolution
