"""The list of models and presets."""

from itertools import groupby

from likelify.app.show import console, program, show_list


def models_command() -> None:
    """List models and presets."""
    from likelify.zoo import MODELS, PRESETS

    console.print("Models, for --model:")
    show_list({name: config.summary for name, config in MODELS.items()})
    console.print("\nPresets, for --preset, with the bits/dim of their papers (CIFAR-10, ELBO):")
    for paper, presets in groupby(PRESETS.values(), key=lambda preset: preset.paper):
        console.print(f"{paper}:")
        show_list({preset.name: preset.summary for preset in presets})
    console.print(f"\nTry one: {program()} fit --dry-run --preset table2-sylvester --size small")
