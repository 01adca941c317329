import csv

import numpy as np
import pytest
import torch

from likelify.data import SourceOptions, open_source
from likelify.data.molecules import FORMULA, Molecule
from likelify.errors import DataError

HEADER = ["XYZ_file", "Index", "SMILES", "N_atoms", "Elements", "XYZ_Ang", "HOMO_au"]
FORMULAS = [("C", 1, 4), ("N", 1, 3), ("O", 1, 2), ("C", 2, 2), ("C", 2, 6)] * 2


def molecules():
    """Return ten molecules: elements and positions, with heavy atoms first as in QM9."""
    rng, made = np.random.default_rng(0), []
    for heavy, count, hydrogen in FORMULAS:
        elements = [heavy] * count + ["H"] * hydrogen
        made.append((elements, rng.normal(size=(len(elements), 3)).round(10) + 1.0))
    return made


def write_table(path, made):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for number, (elements, positions) in enumerate(made, 1):
            words = "[" + ",".join(f"'{element}'" for element in elements) + "]"
            numbers = "[" + ",".join("[" + ",".join(map(str, row)) + "]" for row in positions.tolist()) + "]"
            name = f"dsgdb9nsd_{number:06d}.xyz"
            rows.writerow([name, number, "C", len(elements), words, numbers, -0.3])


def write_files(folder, made):
    """As QM9 writes them: properties, atoms with charges, frequencies, SMILES, InChI; tabs; powers of Mathematica."""
    for number, (elements, positions) in enumerate(made, 1):
        lines = [str(len(elements)), f"gdb {number}\t157.7\t0."]
        for element, row in zip(elements, positions, strict=True):
            lines.append("\t".join([element, *(f"{value * 1e6:.10f}*^-6" for value in row), "-0.5"]))
        lines += ["1341.307\t3151.7", "C\tC", "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4"]
        (folder / f"dsgdb9nsd_{number:06d}.xyz").write_text("\n".join(lines) + "\n")


def expected(source, split, made):
    names = source.item_names(split)
    chosen = [made[int(name[-6:]) - 1][1] for name in names]
    return np.concatenate([positions - positions.mean(0) for positions in chosen])


@pytest.mark.parametrize("form", ["parts", "table", "files"])
def test_molecules_are_graphs_of_centred_positions(tmp_path, form):
    made = molecules()
    place = tmp_path
    if form == "parts":
        write_table(tmp_path / "qm9_part1.csv", made[:6])
        write_table(tmp_path / "qm9_part2.csv", made[6:])
        names = [f"dsgdb9nsd_{number:06d}" for number in [*range(1, 7), *range(1, 5)]]
    elif form == "table":
        place = tmp_path / "some.csv"
        write_table(place, made)
    else:
        write_files(tmp_path, made)
    source = open_source(f"qm9:{place}")
    assert [source.size(split) for split in ("train", "validation", "test")] == [8, 1, 1]
    assert (source.event_shape, source.columns, source.classes) == ((3,), ("x", "y", "z"), None)
    assert source.graphs.complete
    assert source.graphs.centred
    if form == "parts":
        found = [name for split in ("train", "validation", "test") for name in source.item_names(split)]
        assert sorted(found) == sorted(names)
        return
    batch = source.read_all("train")
    assert np.abs(batch.x.numpy() - expected(source, "train", made)).max() < 1e-9
    sums = torch.zeros(8, 3, dtype=torch.float64).index_add(0, batch.structure.owner, batch.x)
    assert float(sums.abs().max()) < 1e-12


def test_elements_and_formulas_can_be_asked_for(tmp_path):
    made = molecules()
    write_files(tmp_path, made)
    (tmp_path / "dsgdb9nsd_000011.xyz").write_text("1\n\nHe 0 0 0\n")
    options = SourceOptions(columns="z,H,C", labels=FORMULA)
    source = open_source(f"qm9:{tmp_path}", options)
    assert source.columns == ("z", "H", "C")
    assert source.class_names == ("C2H2", "C2H6", "CH4", "H2O", "H3N")
    assert "1 of a single atom left out, positions as they are, elements with uniform noise" in source.description
    assert not source.graphs.centred
    batch = source.read_all("train")
    first = source.item_names("train")[0]
    elements = made[int(first[-6:]) - 1][0]
    assert batch.x[: len(elements), 1].floor().tolist() == [float(element == "H") for element in elements]
    assert batch.x[: len(elements), 2].floor().tolist() == [float(element == "C") for element in elements]
    formula = Molecule("", tuple(elements), np.zeros((0, 3))).formula
    assert source.class_names[int(batch.labels[0])] == formula
    with pytest.raises(DataError, match="features of atoms 'Q'"):
        open_source(f"qm9:{tmp_path}", SourceOptions(columns="x,Q"))
    with pytest.raises(DataError, match="--labels formula, not 'gap'"):
        open_source(f"qm9:{tmp_path}", SourceOptions(labels="gap"))


def test_a_file_of_several_molecules_is_read_one_by_one(tmp_path):
    place = tmp_path / "trajectory.xyz"
    place.write_text("".join(f"2\nframe\nO 0 0 {n}\nH 1.0 0 0\n\n" for n in range(12)))
    source = open_source(place)
    assert source.name == f"qm9:{place.resolve()}"
    names = [name for split in ("train", "validation", "test") for name in source.item_names(split)]
    assert sorted(names) == sorted(["trajectory", *(f"trajectory {n}" for n in range(1, 12))])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two\n\nC 0 0 0\n", "line 1: a file .xyz begins with the number of atoms, not with 'two'"),
        ("", "is empty"),
        ("2\n\nC 0 0 0\n", "2 atoms are announced, and atom 2 has no element"),
        ("2\n\nC 0 0 0\nH 0 0 far\n", "coordinates must be numbers"),
        ("2\n\nC 0 0 0\nH 0 0 nan\n", "a coordinate is infinite, missing"),
        ("2\n\nC 0 0 0\n17 0 0 1\n", "'17' is no element"),
        ("99999999999\n\nC 0 0 0\n", "begins with the number of atoms"),
        ("2\n\nH 0 0 0\nH 0 0 1\n2 atoms\n\nH 0 0 0\n", "line 7: an atom, 'H 0 0 0', that belongs to no molecule"),
        ("1\n\nC 0 0 0\n", "no molecules of two atoms or more"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, said):
    (tmp_path / "water.xyz").write_text(text)
    with pytest.raises(DataError, match=said):
        open_source(f"qm9:{tmp_path}")


def test_damaged_tables_and_wrong_places_are_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no '.*nowhere'"):
        open_source(f"qm9:{tmp_path}/nowhere")
    with pytest.raises(DataError, match=r"no files \.xyz, and no qm9_part1\.csv"):
        open_source(f"qm9:{tmp_path}")
    (tmp_path / "rows.txt").write_text("1")
    with pytest.raises(DataError, match=r"must end in \.xyz or \.csv"):
        open_source(f"qm9:{tmp_path}/rows.txt")
    place = tmp_path / "some.csv"
    place.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column 'Elements'"):
        open_source(f"qm9:{place}")
    place.write_text("Elements,XYZ_Ang\n\"['C','H']\",\"[[0,0,0],[1,1]]\"\n")
    with pytest.raises(DataError, match="line 2: there are 2 atoms and 5 coordinates"):
        open_source(f"qm9:{place}")
    place.write_text("Elements,XYZ_Ang\n\"['C','H']\",\"[[0,0,0]")
    with pytest.raises(DataError, match="is damaged after line 1: unexpected end of data"):
        open_source(f"qm9:{place}")
    place.write_text("Elements,XYZ_Ang\n" + "C" * 2**22)
    with pytest.raises(DataError, match="a line of more than 2,097,152 characters"):
        open_source(f"qm9:{place}")
    place.write_bytes(b"Elements,XYZ_Ang\n\xff\xfe\n")
    with pytest.raises(DataError, match="is not a table of molecules, or is damaged"):
        open_source(f"qm9:{place}")
