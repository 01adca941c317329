"""The API reference has every public name, on the page of the module that defines it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
PUBLIC = re.compile(r"^from (\S+) import (\w+) as \2$", re.MULTILINE)
ENTRY = re.compile(r"^::: (\S+)\n((?:    .*\n)*)", re.MULTILINE)
PACKAGES = {".".join(stub.parent.relative_to(SRC).parts): stub for stub in SRC.rglob("__init__.pyi")}
ENTRIES = {
    module: options
    for page in sorted((ROOT / "docs/api").glob("*.md"))
    for module, options in ENTRY.findall(page.read_text() + "\n")
}


def names(file):
    """Return for each public name of a package the module that defines it; a package passes on what others define."""
    found = {}
    for home, name in PUBLIC.findall(file.read_text()):
        inner = SRC.joinpath(*home.split("."), "__init__.py")
        found[name] = names(inner).get(name, home) if inner.is_file() else home
    return found


def is_shown(home, name):
    package = home.rpartition(".")[0]
    for module, options in ENTRIES.items():
        members = re.search(r"members: \[(.*)\]", options)
        # A module may pass on what a sibling defines.
        if members and module.rpartition(".")[0] == package and name in members[1].split(", "):
            return True
        if members is None and (module == home or (home.startswith(f"{module}.") and "show_submodules" in options)):
            return True
    return False


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package):
    # Packages have pages of their parts, and the version is no part of the interface.
    public = {name: home for name, home in names(PACKAGES[package]).items() if f"{home}.{name}" not in PACKAGES}
    missing = [f"{home}.{name}" for name, home in public.items() if name[0] != "_" and not is_shown(home, name)]
    assert not [name for name in missing if not SRC.joinpath(*name.split(".")).with_suffix(".py").is_file()]


def test_entries_are_modules():
    for module in ENTRIES:
        path = SRC.joinpath(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
