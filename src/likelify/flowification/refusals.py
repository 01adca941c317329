"""What cannot be converted, why, and what to do instead; gathered into one error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from likelify.errors import UnsupportedError
from likelify.flowification.rules import Call

TENSOR_ALPHA = "has a tensor as alpha, which could not be trained or saved. Multiply by it in a step of its own."

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
DROPOUT_CALLS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")

# Beginnings of the names of modules and whole names of calls, and what is wrong with them.
REASONS: list[tuple[tuple[str, ...], str]] = [
    (
        ("Softmax", "Softmin", "LogSoftmax", "Gumbel", "AdaptiveLogSoftmaxWithLoss")
        + ("softmax", "log_softmax", "softmin", "gumbel_softmax"),
        "lands on a simplex and forgets a common shift of its inputs. Drop it and give the logits; a classifier's loss "
        "can take the softmax itself.",
    ),
    (
        ("MultiheadAttention", "Transformer", "scaled_dot_product_attention", "multi_head_attention_forward"),
        "mixes positions with weights that depend on the data, and has no tractable inverse. Replace it by a "
        "convolution, or a linear layer over the positions (as in a mixer network).",
    ),
    (
        ("LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "LocalResponseNorm", "CosineSimilarity")
        + ("layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize", "local_response_norm"),
        "drops mean and scale of each event, so the result lies on a sphere and has no density. Take nn.BatchNorm, or "
        "none.",
    ),
    (
        ("GELU", "SiLU", "Mish", "Hardswish", "GLU")
        + ("gelu", "silu", "mish", "hardswish", "glu", "sin", "cos", "square"),
        "is not monotone, so two inputs share an output. Take nn.LeakyReLU(0.2) or nn.PReLU and train on, or a spline "
        "with a rule of your own.",
    ),
    (
        ("pow", "pow_"),
        "is not monotone if the power is even, and flat at zero if it is odd. Take nn.LeakyReLU(0.2) or nn.PReLU and "
        "train on, or a spline with a rule of your own.",
    ),
    (
        ("Hardtanh", "ReLU6", "Hardsigmoid", "Hardshrink", "Softshrink", "Threshold")
        + ("hardtanh", "relu6", "hardsigmoid", "clamp", "clip", "threshold", "sign", "round", "floor"),
        "is flat where inputs differ, so the output has no density. Take nn.LeakyReLU(0.2) and train on.",
    ),
    (
        ("Embedding", "argmax", "argmin", "embedding", "one_hot", "topk", "sort", "bincount"),
        "gives integers or reads them; there is no density. Take it out of the part that becomes a flow.",
    ),
    (
        ("RNN", "LSTM", "GRU", "lstm", "gru", "rnn_tanh"),
        "carries a state with gates that depend on the data. Take convolutions, or a Transform of your own "
        "(flowification.rule).",
    ),
    (
        ("where",),
        "chooses by the values of its input, which no rule can look into. Take the activation that it stands for, such "
        "as F.leaky_relu, or move it into a module with a rule of your own (flowification.rule).",
    ),
    (
        ("Bilinear", "mul", "bmm", "matmul", "einsum", "div", "truediv", "imul", "mm"),
        "multiplies two things that depend on the input, which has no inverse. Replace the gate by a sum or a "
        "concatenation, or move it into a module with a rule of your own (flowification.rule).",
    ),
]


class NotConvertibleError(UnsupportedError):
    """A step cannot be converted; caught by `flowify`, which reports all such steps together."""


@dataclass
class Refusals:
    """All constructs so far that cannot be converted, in order, each once.

    Attributes:
        found: dotted path of the module, or name of the call and its place; what it is and why it does not work.
    """

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        """Record a construct that cannot be converted, with the reason."""
        if (where, what) not in self.found:
            self.found.append((where, what))

    def raise_if_any(self, name: str) -> None:
        """Raise one `UnsupportedError` that lists them all."""
        if not self.found:
            return
        count = f"{len(self.found)} constructs" if len(self.found) > 1 else "one construct"
        lines = "".join(f"\n  - {where}: {what}" for where, what in self.found)
        raise UnsupportedError(f"flowify cannot convert this {name}, because of {count}:{lines}")


def refuse_active_dropout(call: Call) -> None:
    """Refuse functional dropout, unless it does nothing in evaluation.

    Raises:
        NotConvertibleError: with the remedy.
    """
    if call.argument(2, "training", default=True) and call.argument(1, "p", 0.5) > 0:
        raise NotConvertibleError(
            "drops values in evaluation too, since it is not given training=self.training. Pass that, or take "
            "nn.Dropout."
        )


def reason(target: Any, inputs: int) -> str:
    """Return the sentence that says why a construct cannot be converted.

    Args:
        target: the module, function or name of a method.
        inputs: how many of its inputs depend on the data.
    """
    if isinstance(target, nn.Module):
        kind = type(target)
        names = [parent.__name__ for parent in kind.__mro__]
        for prefixes, text in REASONS:
            if any(name.startswith(prefixes) for name in names):
                return f"{kind.__name__} {text}"
        return (
            f"there is no rule for modules of type {kind.__module__}.{kind.__qualname__}. Write one: "
            f"@flowification.rule({kind.__name__}) on a function (module, in_shape, options) -> Transform."
        )
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    for known, text in REASONS:
        # What is said of two things that depend on the input is said of no other.
        if name in known and (inputs > 1 or "Bilinear" not in known):
            return f"{name} {text}"
    if inputs > 1:
        return (
            f"{name} combines {inputs} tensors that depend on the input; only sums and concatenations along the "
            "channels do so in a way that has a density."
        )
    quoted = repr(name) if isinstance(target, str) else name
    return (
        f"there is no rule for {name}. Write one: @flowification.rule({quoted}) on a function "
        "(call, in_shape, options) -> Transform."
    )
