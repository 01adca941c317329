"""Fine pixels drawn around coarse ones, and the surprise of pixels."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

import likelify as lk
from likelify import zoo
from likelify.data import ArraySource
from likelify.errors import ConfigError, DataError
from likelify.fitting.drawing import latents
from likelify.fitting.drawing.superresolution import fine_given_coarse
from likelify.fitting.run import Run
from likelify.fitting.scoring.surprise import picture_surprises, surprise_of
from likelify.fitting.settings import RunConfig
from likelify.testing import randomize
from likelify.transforms import YCoCgR
from tests.fitting.toys import QUICK, tiny_flow


def pyramid(shape, levels, **settings):
    torch.manual_seed(0)
    flow = zoo.build("pyramid", event_shape=shape, pixel_levels=levels, width=6, head=4, **settings)
    return randomize(flow, scale=0.4)


def run_of(folder, shape, levels, monkeypatch, classes=None):
    rng = np.random.default_rng(0)
    sizes = {"train": 20, "validation": 6, "test": 5}
    images = {split: rng.integers(levels, size=(count, *shape)) for split, count in sizes.items()}
    labels = None if classes is None else {split: np.arange(count) % classes for split, count in sizes.items()}
    source = ArraySource("noise", images, kind="image", levels=levels, labels=labels, classes=classes)
    flow = pyramid(shape, levels, classes=classes)
    model = zoo.MODELS["pyramid"](event_shape=shape, pixel_levels=levels, width=6, head=4, classes=classes)
    config = RunConfig(data=source.facts(), model=model, fit=QUICK, conditional=classes is not None)
    run = Run.create(folder, config)
    run.save_weights(flow.state_dict())
    monkeypatch.setattr(Run, "source", lambda _: source)
    return run, source


@torch.no_grad()
def test_fine_pixels_follow_their_conditional_distribution():
    flow = pyramid((1, 2, 2), 2).double()
    x = torch.tensor(list(itertools.product(range(2), repeat=4))).reshape(-1, 1, 2, 2)
    exact = flow.log_prob(x).exp()
    given = exact[8:] / exact[8:].sum()
    torch.manual_seed(1)
    drawn = fine_given_coarse(flow, torch.ones(10_000, 1, 1, 1, dtype=torch.float64), 2)
    place = (drawn.flatten(1).long() * torch.tensor([0, 4, 2, 1])).sum(1)
    found = torch.bincount(place, minlength=8).double()
    chi_square = float(((found - 10_000 * given) ** 2 / (10_000 * given)).sum())
    assert chi_square < 7 + 5 * math.sqrt(14)


def test_coarse_pixels_stay_and_seeds_decide(tmp_path, monkeypatch):
    run, source = run_of(tmp_path / "run", (3, 5, 6), 16, monkeypatch)
    found = run.upscale("test", factor=2, draws=3, limit=4)
    test = source.read_all("test").x[:4]
    assert found.x.shape == (4, 3, 3, 5, 6)
    assert found.x.dtype == torch.uint8
    assert torch.equal(found.original, test)
    assert torch.equal(found.x[..., ::2, ::2], test[..., ::2, ::2].to(torch.uint8)[:, None].expand(-1, 3, -1, -1, -1))
    assert len(found.x.flatten(0, 1).unique(dim=0)) == 12
    small = run.upscale(found.coarse.numpy(), draws=3)
    assert (small.factor, small.original) == (2, None)
    assert torch.equal(small.x, found.x)
    last = test[..., ::4, ::4].permute(0, 2, 3, 1)
    assert torch.equal(run.upscale(last, draws=1).coarse, test[..., ::4, ::4].long())
    with pytest.raises(DataError, match=r"have the shape \(2, 2\); one is \(3, height, width\)"):
        run.upscale(np.zeros((2, 2), np.uint8))
    assert not torch.equal(run.upscale(found.coarse, draws=3, seed=1).x, found.x)
    cold = run.upscale(found.coarse, draws=2, temperature=0.0).x
    assert torch.equal(cold[:, 0], cold[:, 1])


def test_a_small_picture_is_taken_as_it_is(tmp_path, monkeypatch):
    run, _ = run_of(tmp_path / "run", (3, 8, 8), 256, monkeypatch)
    pixels = np.random.default_rng(0).integers(256, size=(2, 2, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    found = run.upscale(str(tmp_path / "small.png"), draws=1)
    assert found.factor == 4
    assert np.array_equal(found.x[0, 0, :, ::4, ::4].numpy(), pixels.transpose(2, 0, 1))
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match="4x4, 2x2, 1x1"):
        run.upscale(tmp_path / "odd.png")


@pytest.mark.parametrize(("channels", "levels"), [(1, 16), (2, 256), (4, 256)])
def test_files_are_not_taken_for_images_that_no_file_holds(tmp_path, monkeypatch, channels, levels):
    run, _ = run_of(tmp_path / "run", (channels, 4, 4), levels, monkeypatch)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=f"{channels} channels with {levels} levels, which no files of pictures have"):
        run.upscale(tmp_path / "small.png")


def test_a_grey_picture_needs_no_axis_of_channels(tmp_path, monkeypatch):
    run, _ = run_of(tmp_path / "run", (1, 4, 4), 4, monkeypatch)
    grey = np.array([[0, 3], [2, 1]])
    found = run.upscale(grey, draws=1)
    assert found.factor == 2
    assert np.array_equal(found.x[0, 0, 0, ::2, ::2].numpy(), grey)


def test_both_ends_of_a_way_are_the_images_themselves(tmp_path, monkeypatch):
    run, source = run_of(tmp_path / "run", (3, 16, 16), 256, monkeypatch)
    test = source.read_all("test").x
    decoded = []
    decode = latents.decode

    def noted(flow, latent):
        decoded.append(latent.last.values.dtype)
        return decode(flow, latent)

    monkeypatch.setattr(latents, "decode", noted)
    found = run.interpolate("test:0", "test:1", 9)
    assert torch.equal(found[[0, -1]].long(), test[:2].long())
    # Places on the way are decoded together, in another batch than the ends were encoded in.
    assert decoded == [torch.float64]


def test_arrays_of_images_are_read_as_tiles_read_them(tmp_path, monkeypatch):
    run, source = run_of(tmp_path / "colours", (3, 7, 8), 16, monkeypatch)
    found = run.upscale("test", factor=2, draws=2, limit=2)
    coarse = found.coarse.numpy()
    for array in (coarse, coarse.transpose(0, 2, 3, 1), torch.from_numpy(coarse).long()):
        assert torch.equal(run.upscale(array, draws=2).x, found.x)
    one = run.upscale(coarse[0].transpose(1, 2, 0), draws=2)
    assert torch.equal(one.x, run.upscale(coarse[:1], draws=2).x)
    whole = source.read_all("test").x[:2]
    assert torch.equal(run.upscale(whole.permute(0, 2, 3, 1), factor=2, draws=2).x, found.x)
    with pytest.raises(DataError, match="channels first or last"):
        run.upscale(np.zeros((2, 2, 2, 3, 3), int))
    with pytest.raises(DataError, match="channels first or last"):
        run.upscale(np.zeros((2, 4), int))


def test_several_grey_pictures_need_none_either(tmp_path, monkeypatch):
    run, source = run_of(tmp_path / "grey", (1, 5, 6), 16, monkeypatch)
    coarse = np.random.default_rng(0).integers(16, size=(2, 1, 3, 3))
    assert torch.equal(run.upscale(coarse[:, 0], draws=2).x, run.upscale(coarse, draws=2).x)
    whole = source.read_all("test").x[:2]
    found = run.upscale(whole[:, 0], factor=2, draws=2)
    assert torch.equal(found.x, run.upscale("test", factor=2, draws=2, limit=2).x)


def test_classes_are_read(tmp_path, monkeypatch):
    run, _ = run_of(tmp_path / "run", (1, 4, 4), 4, monkeypatch, classes=2)
    coarse = torch.zeros(3, 1, 2, 2, dtype=torch.long)
    one = run.upscale(coarse, draws=4, labels=torch.tensor([0])).x
    other = run.upscale(coarse, draws=4, labels=torch.tensor([1])).x
    assert not torch.equal(one, other)
    with pytest.raises(ConfigError, match="label"):
        run.upscale(coarse)


def test_what_cannot_be_drawn_is_refused(tmp_path, monkeypatch):
    run, _ = run_of(tmp_path / "run", (1, 4, 4), 4, monkeypatch)
    with pytest.raises(ConfigError, match="2, 4 times"):
        run.upscale("test", factor=3)
    monkeypatch.setattr(Run, "flow", lambda _: tiny_flow())
    with pytest.raises(ConfigError, match="inpaint"):
        run.upscale("test")
    with pytest.raises(ConfigError, match="--tiles"):
        run.surprise(np.zeros((1, 5, 5), int))


@torch.no_grad()
def test_surprise_adds_up_to_the_likelihood_also_behind_colours():
    plain = pyramid((3, 3, 2), 4).double()
    flow = lk.Flow(plain.base, lk.Chain([YCoCgR(4), plain.transform]), event_shape=(3, 3, 2)).double()
    x = torch.randint(4, (5, 3, 3, 2))
    for model in (plain, flow):
        bits = surprise_of(model, x)
        assert bits.shape == (5, 3, 2)
        expected = -model.log_prob(x) / (18 * math.log(2))
        assert torch.allclose(bits.flatten(1).mean(1), expected, rtol=0, atol=1e-12)


def test_probabilities_of_all_large_pictures_sum_to_one(tmp_path, monkeypatch):
    run, _ = run_of(tmp_path / "run", (1, 2, 2), 2, monkeypatch)
    pictures = np.array(list(itertools.product(range(2), repeat=6))).reshape(-1, 1, 2, 3)
    shares = []
    found = list(picture_surprises(run, pictures, flow=run.flow().double(), on_share=shares.append))
    assert {each.tiles for each in found} == {2}
    assert abs(sum(math.exp(each.nats) for each in found) - 1) < 1e-12
    assert shares[-1] == 1.0
    # A picture of whole tiles is as likely as these together.
    wide = np.random.default_rng(0).integers(2, size=(1, 4, 4))
    tiles = wide.reshape(1, 2, 2, 2, 2).transpose(1, 3, 0, 2, 4).reshape(4, 1, 2, 2)
    assert abs(run.surprise(wide)[0].nats - run.score(tiles, reference=None).nats.sum()) < 1e-4
    assert run.surprise(wide)[0].bits.shape == (4, 4)


def test_scores_and_surprises_of_files_say_what_was_done_to_their_pictures(tmp_path, monkeypatch):
    run, source = run_of(tmp_path / "run", (3, 4, 4), 256, monkeypatch)
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("L", (8, 6), 7).save(folder / "grey.png")
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    scores = run.score(folder, reference=None)
    assert scores.said.startswith("of 6x8 to 8x8, the middle of each, as large as the aspect allows, reduced to 4x4")
    assert "; 1 grey ones with three equal channels" in scores.said
    assert scores.said in repr(scores)
    assert run.score(folder, reference=None, tiles=True).said == "1 grey ones with three equal channels"
    assert run.score(source.read_all("test").x, reference=None).said == ""
    grey, red = run.surprise(folder)
    assert (grey.said, red.said) == ("1 grey ones with three equal channels", "")
    assert repr(grey) == f"<Surprise of grey.png, 6x8: {grey.bits_per_dim:.3f} bits/dim; {grey.said}>"
