"""What `config.json` in a run folder holds."""

from likelify._version import __version__
from likelify.fitting.settings import FitSettings
from likelify.settings import Settings
from likelify.zoo import AnyModelConfig

FORMAT = 1


class RunConfig(Settings):
    """All that is needed to build the model of a run again, and to know what it was fitted to.

    Attributes:
        format: version of the layout of the folder.
        likelify: version of the library that wrote it.
        source: name of the data.
        fingerprint: of the data.
        conditional: whether the labels were given to the model.
        preset: name and size of the preset that the settings started from, or None.
        model: the model's settings.
        fit: the settings of the fit.
    """

    format: int = FORMAT
    likelify: str = __version__
    source: str
    fingerprint: str
    conditional: bool = False
    preset: str | None = None
    model: AnyModelConfig
    fit: FitSettings
