"""The choices by name that settings and layers share; importing them costs nothing, so settings need no torch."""

from typing import Literal

# Pieces of a spline at most: each has a thousandth of the interval at least, and half of it is to be moved.
MOST_BINS = 499
# Distribution of the noise that fills dimensions which a layer adds.
NoiseName = Literal["normal", "uniform"]
# How the 2-norm of a convolution is bounded: by its unrolled kernel, or by its frequencies on a torus.
NormBoundName = Literal["reshape", "torus"]
# How the two rotations of a linear layer between sizes are parametrized; "free" has a plain matrix instead.
LinearMethod = Literal["exponential", "cayley", "householder", "free"]
# How a residual layer gets its log-determinant: an unbiased estimate, from the Jacobian, or a series cut off.
LogDetName = Literal["roulette", "exact", "truncated"]
# The layers that mix channels, and most of them positions, between the other layers of a model of images.
Mixing = Literal[
    "permutation",
    "1x1",
    "two-1x1",
    "householder",
    "emerging",
    "woodbury",
    "periodic",
    "orthogonal",
    "conv-exponential",
    "axis-exponential",
]
# Those of them that there are along a single axis.
SequenceMixing = Literal[
    "permutation",
    "1x1",
    "two-1x1",
    "householder",
    "woodbury",
    "periodic",
    "orthogonal",
    "conv-exponential",
    "axis-exponential",
]
# What mixes the features of graphs between couplings: nothing, a matrix on each node, an exponential of all nodes, or
# these two in turn.
GraphMixing = Literal["none", "per-node", "graph-exponential", "both"]
# How nodes of graphs see one another in the network of a coupling.
GraphNetName = Literal["message-passing", "attention"]
# What one item of a source is, and what a model is for.
ItemKind = Literal["image", "table", "graph", "sequence"]
# What the values of a column of a table are: numbers of three kinds, and what is none.
ColumnType = Literal["real", "integer", "boolean", "words", "date", "other"]
# What a model takes the values of a column of a table for.
ColumnKind = Literal["real", "integer", "category", "ordered", "boolean", "date"]
