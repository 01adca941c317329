"""The configuration of a flow made of a network of the user's: all but the network.

Building takes the network as an argument; a fingerprint of its architecture tells whether it is the one that the
weights were saved for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from likelify.errors import ConfigError
from likelify.flowification.options import Options
from likelify.zoo.registry import ModelConfig, Size, register

if TYPE_CHECKING:
    from torch import nn

    from likelify.flows import Flow


@register("converted", kind=None, summary="a network of your own, converted by flowify; from Python only", listed=False)
class ConvertedConfig(ModelConfig):
    """Settings of a flow whose layers come from a network of the user's.

    Attributes:
        event_shape: of the data.
        pixel_levels: number of values of a pixel, for integers; None for real numbers.
        value_range: the interval that the integers are spread over in front of the network.
        columns: whether the network's input are standardised columns of a table.
        options: of the conversion.
        fingerprint: of the network's architecture, the options and the contractions.
        contractions: which sums of the network are exact residual blocks, as `Conversion.contractions`.
    """

    reads_labels, needs_module = False, True

    event_shape: tuple[Size, ...] = Field(min_length=1)
    pixel_levels: int | None = Field(default=None, ge=2, le=65536)
    value_range: tuple[float, float] = (0.0, 1.0)
    columns: bool = False
    options: Options = Options()
    fingerprint: str
    contractions: tuple[bool, ...] = ()

    @classmethod
    def of(cls, flow: Flow) -> ConvertedConfig:
        """Return the configuration of a flow that `converted_flow` has made.

        Raises:
            ConfigError: if it was made by other means, or with `density_nets`, which cannot be written down.
        """
        from likelify.zoo.converted.flow import parts_of

        network, front = parts_of(flow)
        conversion = network.conversion
        if conversion.options.density_nets is not None:
            raise ConfigError(
                "This flow was converted with density_nets=, a function that cannot be written to a file. Leave it out "
                "(hidden= sets the width of the usual networks), or save flow.state_dict() yourself."
            )
        return cls(
            event_shape=flow.event_shape or (),
            options=conversion.options,
            fingerprint=conversion.fingerprint,
            contractions=conversion.contractions,
            **front,
        )

    def build(self, module: nn.Module | None = None) -> Flow:
        """Build the flow, with the weights of the module, to load others or to train on.

        A fresh network may have weights that cannot be converted although the saved ones can: a head of zeros, residual
        branches that are no contractions yet. Then the flow is made all the same, with weights that are not numbers
        (NaN) until others are loaded.

        Args:
            module: of the architecture that the configuration was made for.

        Raises:
            ConfigError: without a module, or if its architecture is another one.
            UnsupportedError: if it cannot be converted.
        """
        if module is None:
            raise ConfigError(
                "The architecture of this model is a network of your own, which a run folder does not hold. Load it "
                "from Python with that network: likelify.Run.load('RUN', module=...).flow()"
            )
        from likelify.zoo.converted.flow import converted_again

        front = {name: getattr(self, name) for name in ("pixel_levels", "value_range", "columns")}
        flow = converted_again(module, self.event_shape, self.options, self.contractions, **front)
        found = ConvertedConfig.of(flow).fingerprint
        if found != self.fingerprint:
            raise ConfigError(
                f"The module has another architecture than the one of this configuration (fingerprint {found}, not "
                f"{self.fingerprint}): layers, sizes or their order differ. Its weights play no part in this."
            )
        return flow
