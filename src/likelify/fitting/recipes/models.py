"""The fits that suit a model whatever the data."""

from likelify.settings import Values

# Learning rates of short fits of flowified networks.
FLOWIFIED_RATES = {"fmlp": 2e-3, "fconv1": 6e-3, "fconv2": 8e-3, "fconv-fft": 8e-3}
# Model -> settings of the fit that suit it, whatever the data.
FITS: dict[str, Values] = {
    "marginal-spline": {"steps": 1500, "lr": 4e-3, "batch_size": 128, "average": 0.995},
    **{
        name: {"steps": 1500, "lr": 2e-3, "batch_size": 32, "average": 0.99}
        for name in ("glow", "sylvester", "residual", "coupling-flow", "mixing-flow")
    },
    **{
        name: {"steps": 3000, "lr": rate, "batch_size": 128, "average": 0.995} for name, rate in FLOWIFIED_RATES.items()
    },
    "series": {"steps": 800, "lr": 5e-3, "batch_size": 64, "average": 0.99, "patience": 5},
    # The limit is on time; so many steps are for those who give more of it.
    "pyramid": {
        "steps": 100_000,
        "max_time": 600,
        "lr": 6e-3,
        # Steps matter more than the noise of their gradients: twice as many images made each half as useful.
        "batch_size": 8,
        "average": 0.998,
        "validations": 8,
        # For regressions with some dozen inputs.
        "initialize_items": 256,
    },
    # Tables of some hundred rows, such as scikit-learn's, are overfitted soon; large ones deserve more --steps.
    "flowified-mlp": {"steps": 1000, "lr": 3e-3, "batch_size": 128, "average": 0.99},
}
