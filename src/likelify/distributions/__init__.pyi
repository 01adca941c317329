from likelify.distributions.categorical import ConditionalCategorical as ConditionalCategorical
from likelify.distributions.core import Distribution as Distribution
from likelify.distributions.core import Likelihood as Likelihood
from likelify.distributions.noise import ChannelNoise as ChannelNoise
from likelify.distributions.normal import ConditionalNormal as ConditionalNormal
from likelify.distributions.normal import Normal as Normal
from likelify.distributions.rectified import RectifiedNormal as RectifiedNormal
