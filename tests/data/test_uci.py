"""The five tables of the literature, on small files of the same format; expected values by another way of computing."""

import gzip
import sys
import types

import numpy as np
import pytest

from likelify.data import open_source
from likelify.errors import DataError, MissingDependencyError

SPLITS = ("train", "validation", "test")
RNG = np.random.default_rng(3)


def given(source):
    return {split: source.read_all(split).x.numpy() for split in SPLITS}


def cut(values):
    count = len(values)
    tests = int(0.1 * count)
    held = int(0.1 * (count - tests))
    return {
        "train": values[: count - tests - held],
        "validation": values[count - tests - held : count - tests],
        "test": values[count - tests :],
    }


def check(source, parts, atol=1e-5):
    for split, values in given(source).items():
        assert values.shape == parts[split].shape
        np.testing.assert_allclose(values, parts[split], atol=atol)


def meter(count):
    """Active and reactive power, voltage, intensity, three meterings, minute."""
    values = RNG.uniform(1, 5, (count, 8))
    values[:, 4:7] = RNG.integers(0, 9, (count, 3))
    values[:, 7] = RNG.integers(0, 1440, count)
    return values.round(3)


def published_power(data, minutes=False):
    random = np.random.RandomState(42)
    data = data.copy()
    random.shuffle(data)
    volts, watts, meters = (random.rand(len(data), n) for n in (1, 1, 3))
    clock = random.rand(len(data), 1) if minutes else np.zeros((len(data), 1))
    kept = np.delete(data, [1, 3], axis=1)
    kept = kept + np.hstack([0.001 * watts, 0.01 * volts, meters, clock])
    parts = cut(kept)
    both = np.vstack([parts["train"], parts["validation"]])
    return {split: (part - both.mean(0)) / both.std(0) for split, part in parts.items()}


def test_power_from_the_archive(tmp_path):
    data = meter(215)
    (tmp_path / "power").mkdir()
    np.save(tmp_path / "power" / "data.npy", data)
    source = open_source(f"power:{tmp_path}")
    assert (source.event_shape, source.levels, source.family) == ((6,), None, "power")
    check(source, published_power(data))
    assert open_source(f"power:{tmp_path / 'power'}").fingerprint() == source.fingerprint()
    assert open_source(source.name).fingerprint() == source.fingerprint()


def test_power_from_uci(tmp_path):
    data = meter(120)
    lines = ["Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;Sub_metering_1;..2;..3"]
    for number, row in enumerate(data):
        hours, minutes = divmod(int(row[7]), 60)
        lines.append(f"16/12/2006;{hours:02d}:{minutes:02d}:00;" + ";".join(f"{value:.3f}" for value in row[:7]))
        if number % 7 == 0:
            lines.append("28/4/2007;00:21:00;?;?;?;?;?;?;")
    (tmp_path / "household_power_consumption.txt").write_text("\r\n".join(lines) + "\r\n")
    check(open_source(f"power:{tmp_path}"), published_power(data, minutes=True))


def sensors(count):
    free = RNG.normal(size=(count, 16)) * RNG.uniform(0.1, 9, 16)
    free[:, 5] = 2 * free[:, 2] + 1e-3 * free[:, 5]
    free[:, 9] = free[:, 2] + 1e-3 * free[:, 9]
    free[:, 15] = free[:, 0] + 1e-3 * free[:, 15]
    return np.hstack([np.arange(count)[:, None], RNG.uniform(size=(count, 2)), free])


@pytest.mark.parametrize("form", ["npy", "csv"])
def test_gas(tmp_path, form):
    data = sensors(150)
    if form == "npy":
        np.save(tmp_path / "ethylene_CO.npy", data)
    else:
        names = ["Time", "Meth", "Eth", *(f"s{i}" for i in range(16))]
        lines = [",".join(names), *(",".join(map(repr, map(float, row))) for row in data)]
        (tmp_path / "ethylene_CO.csv").write_text("\n".join(lines))
    # Of the trio 2, 5, 9 the first two go, of the pair 0, 15 the first.
    kept = data[:, 3:][:, [1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]]
    check(open_source(f"gas:{tmp_path}"), cut((kept - kept.mean(0)) / kept.std(0, ddof=1)))


def test_a_pickled_table_is_not_read(tmp_path):
    (tmp_path / "ethylene_CO.pickle").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"a pickle can run anything; where you trust it, .*python -c"):
        open_source(f"gas:{tmp_path}")


def collisions(count, columns):
    values = RNG.normal(size=(count, columns))
    values[:, 0] = RNG.integers(0, 2, count)
    values[:, 4] = RNG.choice([0.5, 1.5], count)
    return values


@pytest.mark.parametrize("packed", [False, True])
def test_hepmass(tmp_path, packed):
    data = {"train": collisions(160, 28), "test": collisions(90, 29)}
    for part, values in data.items():
        header = "# label," + ",".join(f"f{i}" for i in range(27)) + (",mass" if part == "test" else "")
        text = "\n".join([header, *(",".join(map(repr, map(float, row))) for row in values)])
        path = tmp_path / f"1000_{part}.csv"
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
    train, test = (data[part][data[part][:, 0] == 1][:, 1:28] for part in ("train", "test"))
    train, test = (np.delete(values, 3, axis=1) for values in (train, test))
    mean, scale = train.mean(0), train.std(0, ddof=1)
    held = int(len(train) * 0.1)
    parts = {"train": train[:-held], "validation": train[-held:], "test": test}
    source = open_source(f"hepmass:{tmp_path}")
    assert "f3" not in source.columns
    check(source, {split: (part - mean) / scale for split, part in parts.items()})


def neutrinos(count):
    values = RNG.normal(size=(count, 50))
    values[:, 7] = RNG.choice([0.0, 1.0], count)
    values[5, 0] = -999.0
    return values


def test_miniboone_from_uci(tmp_path):
    signal, background = neutrinos(100), neutrinos(60)
    lines = ["  100  60", *("  ".join(f"{v:.17g}" for v in row) for row in np.vstack([signal, background]))]
    (tmp_path / "MiniBooNE_PID.txt").write_text("\n".join(lines) + "\n")
    clean = np.delete(np.delete(signal, 5, axis=0), 7, axis=1)
    parts = cut(clean)
    both = np.vstack([parts["train"], parts["validation"]])
    check(open_source(f"miniboone:{tmp_path}"), {k: (v - both.mean(0)) / both.std(0) for k, v in parts.items()})
    (tmp_path / "MiniBooNE_PID.txt").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match="announces 160 rows and has 159: it is cut off"):
        open_source(f"miniboone:{tmp_path}")


def test_miniboone_from_the_archive(tmp_path):
    data = RNG.normal(size=(80, 43)) + 3
    np.save(tmp_path / "data.npy", data)
    parts = cut(data)
    both = np.vstack([parts["train"], parts["validation"]])
    check(open_source(f"miniboone:{tmp_path}"), {k: (v - both.mean(0)) / both.std(0) for k, v in parts.items()})


def test_bsds300_is_left_as_it_is(tmp_path):
    h5py = pytest.importorskip("h5py")
    data = {split: RNG.normal(size=(n, 63)).astype("f4") for split, n in zip(SPLITS, (20, 4, 6), strict=True)}
    with h5py.File(tmp_path / "BSDS300.hdf5", "w") as file:
        for split, values in data.items():
            file[split] = values
    check(open_source(f"bsds300:{tmp_path}"), data, atol=0)
    (tmp_path / "BSDS300.hdf5").write_bytes(b"not hdf5")
    with pytest.raises(DataError, match=r"is not the file BSDS300\.hdf5"):
        open_source(f"bsds300:{tmp_path}")


def test_bsds300_through_a_stand_in(tmp_path, monkeypatch):
    """The same where h5py is not installed."""
    data = {split: RNG.normal(size=(n, 63)).astype("f4") for split, n in zip(SPLITS, (20, 4, 6), strict=True)}

    class File(dict):
        def __init__(self, path, mode):
            super().__init__(data)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    (tmp_path / "BSDS300.hdf5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=File))
    source = open_source(f"bsds300:{tmp_path}")
    check(source, data, atol=0)
    data["test"] = data["test"][:, :60]
    with pytest.raises(DataError, match="expected 63 columns"):
        open_source(f"bsds300:{tmp_path}")
    del data["test"]
    with pytest.raises(DataError, match=r"is not the file BSDS300\.hdf5"):
        open_source(f"bsds300:{tmp_path}")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"likelify\[tables\]"):
        open_source(f"bsds300:{tmp_path}")


@pytest.mark.parametrize("name", ["power", "gas", "hepmass", "miniboone", "bsds300"])
def test_missing_files_say_where_to_get_them(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name} needs the file .*No such file is in .*zenodo"):
        open_source(f"{name}:{tmp_path}")
    with pytest.raises(DataError, match="There is no folder"):
        open_source(f"{name}:{tmp_path / 'nowhere'}")


def test_files_that_are_not_right(tmp_path):
    np.save(tmp_path / "data.npy", np.ones((40, 5)))
    np.save(tmp_path / "ethylene_CO.npy", np.ones((40, 5)))
    for name in ("power", "miniboone", "gas"):
        with pytest.raises(DataError, match=f"is not the file of {name}: it has shape"):
            open_source(f"{name}:{tmp_path}")
    (tmp_path / "data.npy").unlink()
    for text in ("foreign\nfile\n", "2 x\n1 2\n", ""):
        (tmp_path / "MiniBooNE_PID.txt").write_text(text)
        with pytest.raises(DataError, match=r"is not UCI's MiniBooNE_PID\.txt"):
            open_source(f"miniboone:{tmp_path}")
    (tmp_path / "household_power_consumption.txt").write_text("Date;Time\nforeign\n")
    with pytest.raises(DataError, match=r"is not UCI's household"):
        open_source(f"power:{tmp_path}")
    for part in ("train", "test"):
        (tmp_path / f"1000_{part}.csv").write_text("# label,f0\n1.0,2.0\n")
    with pytest.raises(DataError, match="line 2 has 2 values; there are 28 columns"):
        open_source(f"hepmass:{tmp_path}")
    row = ",".join(["0.0"] * 28)
    for part in ("train", "test"):
        (tmp_path / f"1000_{part}.csv").write_text(f"# label,f0\n{row}\n{row}\n")
    with pytest.raises(DataError, match="has no rows with the label 1"):
        open_source(f"hepmass:{tmp_path}")


def test_tables_of_which_nothing_is_left(tmp_path):
    outliers = np.full((20, 50), -200.0)
    (tmp_path / "MiniBooNE_PID.txt").write_text("20 0\n" + "\n".join(" ".join(map(str, row)) for row in outliers))
    np.save(tmp_path / "ethylene_CO.npy", sensors(3))
    with pytest.raises(DataError, match="has 0 rows of use; at least 10"):
        open_source(f"miniboone:{tmp_path}")
    with pytest.raises(DataError, match="has 3 rows of use; at least 10"):
        open_source(f"gas:{tmp_path}")
    np.save(tmp_path / "ethylene_CO.npy", np.ones((40, 19)))
    with pytest.raises(DataError, match="has one value only"):
        open_source(f"gas:{tmp_path}")
    (tmp_path / "MiniBooNE_PID.txt").write_text("-5 25\n" + "\n".join(" ".join(map(str, row)) for row in neutrinos(20)))
    with pytest.raises(DataError, match="its first line says -5 and 25 rows"):
        open_source(f"miniboone:{tmp_path}")
