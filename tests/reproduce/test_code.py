"""Which modules a hash of the code covers, and what changes it."""

import re
import textwrap

import pytest

from likelify.reproduce.code import FITTING, code_hashes, hash_of, modules_of
from likelify.zoo import MODELS, config_from_dict

FILES = {
    "__init__.py": "",
    "loop.py": "from likelify.data.source import Source\nfrom likelify.numbers import add\n",
    "numbers.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from likelify.models.flower import Flower
        def add(x, y):
            "Add."
            return x + y  # quickly
        """,
    "data/__init__.py": "",
    "data/source.py": "Source = 1",
    "layers/__init__.py": "Depth = 5",
    "layers/__init__.pyi": """
        from likelify.layers.deep import Deep as Deep
        from likelify.layers.wide import Wide as Wide
        from likelify.layers.wide import widen as broaden
        """,
    "layers/deep.py": "Deep = 1",
    "layers/wide.py": "from likelify.constants import WIDTH\nWide = broaden = 2",
    "constants/__init__.py": "WIDTH = 3\n",
    "constants/other.py": "OTHER = 4\n",
    "models/__init__.py": "",
    "models/tree.py": """
        from likelify import layers as parts
        def build():
            from likelify.models.roots import grow
            return grow(parts.Wide, parts.broaden)
        """,
    "models/roots.py": "grow = max",
    "models/flower.py": "import likelify as lk\nFlower = lk.layers.Deep",
    "models/wood.py": "from likelify import layers\nall_layers = dir(layers)",
}


@pytest.fixture
def home(tmp_path):
    for name, text in FILES.items():
        file = tmp_path / "likelify" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return tmp_path


def needed(model, home):
    names = modules_of(["likelify.loop", f"likelify.models.{model}"], home)
    return {name.removeprefix("likelify.") for name in names}


def test_modules_are_followed_through_packages_by_name(home):
    tree = {"loop", "numbers", "models.tree", "models.roots", "layers.wide", "constants"}
    assert needed("tree", home) == tree
    assert needed("flower", home) == {"loop", "numbers", "models.flower", "layers.deep"}
    # Whatever is asked of a package that is handed on cannot be seen.
    assert {"layers", "layers.deep", "layers.wide"} <= needed("wood", home)


def change(home, name, text):
    (home / "likelify" / name).write_text(textwrap.dedent(text))
    return hash_of(["likelify.loop", "likelify.models.tree"], home)


def test_only_what_is_needed_changes_the_hash(home):
    before = change(home, "models/roots.py", FILES["models/roots.py"])
    assert re.fullmatch(r"[0-9a-f]{12}", before)
    assert change(home, "models/new.py", "New = 1") == before
    assert change(home, "layers/deep.py", "Deep = 2") == before
    assert change(home, "data/source.py", "Source = 2") == before
    assert change(home, "constants/other.py", "OTHER = 5") == before
    assert (
        change(home, "numbers.py", FILES["numbers.py"].replace('"Add."', '"""Sum."""').replace("# quickly", ""))
        == before
    )
    assert change(home, "numbers.py", FILES["numbers.py"].replace("x + y", "y + x")) != before
    assert change(home, "numbers.py", FILES["numbers.py"]) == before
    assert change(home, "models/roots.py", "grow = min") != before
    assert change(home, "models/roots.py", FILES["models/roots.py"]) == before
    assert change(home, "constants/__init__.py", "WIDTH = 4") != before


def test_each_model_needs_its_own_file_of_the_zoo_and_no_other_models():
    families = {config.__module__ for config in MODELS.values()}
    for config in MODELS.values():
        needed = modules_of((*FITTING, config.__module__))
        # With its base classes: flowified models of images and tables share one.
        assert families & set(needed) == families & {base.__module__ for base in config.__mro__}
        others = r"likelify\.(app|reproduce\.(?!scores)|data|plots|testing|zoo\.(registry|presets))\b"
        assert not [name for name in needed if re.match(others, name)]
        # It decides how many items are weighted, and in which batches.
        assert "likelify.reproduce.scores" in needed
    assert code_hashes("fconv1") == code_hashes("fconv2")
    assert code_hashes("fconv1")["fitting"] == code_hashes("vae")["fitting"]
    assert code_hashes("fconv1")["code"] != code_hashes("vae")["code"]


@pytest.mark.parametrize("model", ["glow", "sylvester", "vae", "fconv1", "fconv-fft", "flowified-mlp"])
def test_all_layers_of_a_model_are_covered(model):
    table = {"event_shape": (6,), "widths": (6,)}
    image = {"event_shape": (1, 8, 8), "pixel_levels": 17}
    flow = config_from_dict({"model": model} | (table if model == "flowified-mlp" else image)).build()
    used = {type(part).__module__ for part in flow.modules()}
    assert {name for name in used if name.startswith("likelify")} <= set(modules_of([MODELS[model].__module__]))
