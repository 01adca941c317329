import warnings

import numpy as np
import pytest
import torch

from likelify.data import energy, log_normalizer, open_source
from likelify.data.simulated import configurations as module
from likelify.data.simulated.configurations import Sampling, configurations, particles, sample
from likelify.data.simulated.particles import SYSTEMS
from likelify.errors import DataError, LikelifyWarning

QUICK = Sampling(levels=60, burn_in=20, draws=4, thin=5, steps=5)
FEW = {"train": 40, "validation": 20, "test": 80}


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Sample little, into a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "SAMPLINGS", dict.fromkeys(SYSTEMS, QUICK))
    monkeypatch.setattr(module, "PARTS", FEW)
    return tmp_path / "likelify"


def test_draws_are_kept_and_the_same_whenever_they_are_made(quick):
    with pytest.warns(LikelifyWarning, match=r"'dw4' is sampled now, .* kept in"):
        first = open_source("dw4")
    (place,) = quick.iterdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = open_source("dw4")
    assert first.fingerprint() == kept.fingerprint()
    place.unlink()
    with pytest.warns(LikelifyWarning, match="sampled now"):
        again = open_source("dw4")
    assert again.fingerprint() == first.fingerprint()
    assert [kept.size(split) for split in FEW] == list(FEW.values())
    batch = kept.read("train", torch.tensor([5, 1]))
    assert batch.structure.is_complete
    assert batch.structure.sizes.tolist() == [4, 4]
    assert float(batch.x.reshape(2, 4, 2).mean(1).abs().max()) < 1e-12
    assert kept.columns == ("x", "y")
    assert "R-hat" in kept.description


@pytest.mark.parametrize("spoil", ["cut", "changed", "other"])
def test_a_damaged_file_is_made_again(quick, spoil):
    with pytest.warns(LikelifyWarning, match="sampled now"):
        whole = configurations("dw4")
    (place,) = quick.iterdir()
    if spoil == "cut":
        place.write_bytes(place.read_bytes()[:1000])
    elif spoil == "changed":
        with np.load(place) as file:
            parts = dict(file)
        parts["train"][0] += 1
        np.savez(place, **parts)
    else:
        np.savez(place, train=np.zeros(3))
    with pytest.warns(LikelifyWarning, match="sampled now"):
        again = configurations("dw4")
    assert np.array_equal(again.splits["train"], whole.splits["train"])
    assert configurations("dw4").r_hat == whole.r_hat


def test_a_folder_that_cannot_be_written_is_said(quick):
    quick.write_text("a file")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(configurations("dw4").splits["test"]) == 80
    assert len(said) == 2
    assert "cannot be written: File exists. It is sampled anew each time." in str(said[1].message)


def test_a_source_has_as_many_training_configurations_as_asked(quick):
    with pytest.warns(LikelifyWarning, match="sampled now"):
        few = particles("dw4", 10)
    assert (few.name, few.size("train"), few.size("test")) == ("dw4-10", 10, 80)
    assert few.fingerprint() != particles("dw4").fingerprint()
    with pytest.raises(DataError, match="1 to 40 training configurations, not 41"):
        particles("dw4", 41)
    with pytest.raises(DataError, match="20 to 80 chains"):
        log_normalizer("dw4", chains=500)
    found = log_normalizer("dw4", chains=40, levels=20)
    assert found.lower < found.upper
    assert 25 < found.value < 34


def test_clusters_do_not_fly_apart_or_melt_into_one_point(quick):
    with pytest.warns(LikelifyWarning, match="sampled now"):
        source = open_source("lj13")
    x = source.read_all("test").x
    nats = energy("lj13", x)
    assert nats.isfinite().all()
    assert -70 < float(nats.median()) < -20


@pytest.mark.slow
def test_four_particles_are_sampled_well():
    """As they are opened but for the number of chains: against the same system with other chains."""
    system = SYSTEMS["dw4"]
    settings = module.SAMPLINGS["dw4"]
    found = [
        sample(system, Sampling(**{**settings.__dict__, "thin": 200, "seed": seed}), dict.fromkeys(FEW, 2000))
        for seed in (0, 1)
    ]
    assert max(each.r_hat for each in found) < 1.05
    assert min(each.effective for each in found) > 0.4
    means = [energy("dw4", torch.from_numpy(each.splits["train"])).mean() for each in found]
    assert abs(float(means[0] - means[1])) < 0.4
