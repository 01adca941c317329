"""The fits of the experiments: as long as the papers had them, and as one processor has time for."""

from likelify.fitting.recipes.presets import FLOWIFIED_FIT
from likelify.settings import Values

# Fits of the experiments of the flowification paper. At its size (the appendix: Adam, 5e-4 falling to 0 along half a
# cosine, batches of 256) the data sets say for how many epochs; on one processor some thousand steps have larger rates
# and a moving average.
EPOCHS_FIT: Values = {name: value for name, value in FLOWIFIED_FIT.items() if name != "steps"}
PROCESSOR_SECONDS = {"images": 600.0, "tables": 240.0, "bundled tables": 60.0, "quick": 4.0}
PROCESSOR_FIT: Values = {"batch_size": 128, "average": 0.99, "validations": 20, "clock": "processor"}
# As many steps for all methods, since they were compared at equal epochs.
EQUAL_STEPS_FIT = PROCESSOR_FIT | {"steps": 800}
QUICK_FIT: Values = {"validations": 4}
# Of some hundred rows.
BUNDLED_FIT: Values = {"batch_size": 64}
# Tables are small: validating is cheap, and fits to some hundred rows are best long before their end.
PROCESSOR_TABLE_FIT = PROCESSOR_FIT | {"batch_size": 256, "validations": 60}
# Steps, batch size and rate of the neural spline flows, which the paper says it followed: from memory.
UCI_FITS: dict[str, Values] = {
    "power": {"steps": 400_000, "batch_size": 512, "lr": 5e-4},
    "gas": {"steps": 400_000, "batch_size": 512, "lr": 5e-4},
    "hepmass": {"steps": 400_000, "batch_size": 256, "lr": 5e-4},
    "miniboone": {"steps": 200_000, "batch_size": 128, "lr": 3e-4},
    "bsds300": {"steps": 400_000, "batch_size": 512, "lr": 5e-4},
}


# Short fits for tables 1 to 3 of the convolution exponential paper. The rate does not fall, and what is validated is an
# average of the weights, so that a curve can be read off at any step and time as if its fit had ended there.
STEADY_FIT: Values = {
    "batch_size": 32,
    "lr": 2e-3,
    "schedule": "exponential",
    "decay": 1.0,
    "average": 0.99,
    "validations": 16,
    "clock": "processor",
    "initialize_items": 512,
}

# Short fits for table 4 of that paper, whose training graphs are never met twice; rates are those of the recipes.
GRAPHS_FIT: Values = {
    "batch_size": 128,
    "validations": 10,
    "validation_items": 1000,
    "clock": "processor",
}
# The appendix is not at hand: the nearest published settings are the defaults of the graph normalizing flows' code.
GRAPHS_PAPER_FIT: Values = {
    "steps": 15_000,
    "batch_size": 32,
    "lr": 1e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "warmup": 0,
    "schedule": "exponential",
    "decay": 0.96**15,
    "clip": None,
    "average": 0.0,
    "validations": 15,
}
