import numpy as np
import pytest

from likelify.data import FROM_FILES, SOURCES, Facts, GraphFacts, as_source, open_source
from likelify.errors import ConfigError
from likelify.fitting import recipes
from likelify.fitting.choose import choose, complete_model
from likelify.fitting.settings import Draws
from likelify.schema import ColumnSchema
from likelify.zoo import MODELS, PRESETS


@pytest.fixture(scope="module")
def digits():
    return open_source("digits").facts()


def test_recipes_name_models_and_data_that_are():
    known = {name: recipe for named in recipes.SOURCES.values() for name, recipe in named.items()}
    assert set(known) <= {*SOURCES, *FROM_FILES}
    named = [recipe.model for recipe in (*known.values(), *recipes.KINDS.values())]
    named += [model for recipe in known.values() for model in (*recipe.models, *recipe.fits)]
    assert {*named, *recipes.FITS} <= set(MODELS)
    assert recipes.images.SOURCES["fashion-mnist"].draws == Draws(elbo_samples=1, iw_samples=128, iw_items=500)


def test_every_preset_has_a_fit():
    for name in PRESETS:
        for size in ("paper", "small"):
            assert recipes.preset_fit(name, size)["steps"] > 0
    assert recipes.preset_fit("flowified-fconv1-uniform", "small")["lr"] == 6e-3
    assert recipes.preset_fit("flowified-fconv2-nsf", "small")["lr"] == recipes.presets.NSF_RATE
    assert recipes.preset_fit("flowified-table-8-16-32-64-128")["lr"] == 5e-4
    with pytest.raises(ConfigError, match="no size of a preset 'large'"):
        recipes.preset_fit("table1-1x1", "large")


def test_nothing_said_is_the_recipe(digits):
    chosen = choose(digits)
    assert (chosen.title, chosen.preset, chosen.threads, chosen.draws) == (
        "marginal-spline",
        None,
        1,
        Draws(),
    )
    assert chosen.model.event_shape == (1, 8, 8)
    assert chosen.model.pixel_levels == 17
    assert chosen.fit.lr == 4e-3
    table = choose(open_source("wine").facts())
    assert (table.title, table.threads, table.draws.iw_items) == ("table-flow", 1, 5000)


def test_what_is_said_more_explicitly_wins(digits):
    chosen = choose(digits, model="sylvester", fit_settings={"steps": 7}, settings={"hidden": 5, "clip": 0.25})
    assert (chosen.model.hidden, chosen.fit.steps, chosen.fit.clip, chosen.fit.lr) == (5, 7, 0.25, 8e-3)
    chosen = choose(digits, preset="table1-1x1", size="small", settings={"model.steps": 2})
    assert (chosen.model.steps, chosen.fit.steps) == (2, 1500)
    assert chosen.title == chosen.preset == "table1-1x1 (small size, with model.steps=2)"
    assert choose(digits, model_settings={"mixing": "emerging"}).title == "glow"
    assert choose(digits, conditional=True).model.classes == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"model": "glwo"}, "no model 'glwo'. Did you mean 'glow'"),
        ({"model": "converted"}, "no model 'converted'"),
        ({"preset": "table1-1x2"}, "no preset 'table1-1x2'"),
        ({"preset": "table1-1x1", "size": "smal"}, "Did you mean 'small'"),
        ({"settings": {"cliip": 1}}, "Did you mean 'clip'"),
        ({"settings": {"fit.cliip": 1}}, "Did you mean 'fit.clip'"),
        ({"settings": {"model.clip": 1}}, "no setting of the model marginal-spline or of the fit 'model.clip'"),
        ({"settings": {"clip": 1, "fit.clip": 1}}, "given twice, as clip and fit.clip"),
        ({"model": "glow", "settings": {"steps": 3}}, "say which, model.steps or fit.steps"),
        ({"model": "flowified-mlp"}, "is not for images, which 'digits' has. Models for images: "),
    ],
)
def test_unknown_words_are_answered(digits, words, message):
    with pytest.raises(ConfigError, match=message):
        choose(digits, **words)


def test_settings_are_completed_by_the_data(digits):
    model = complete_model({"model": "glow", "levels": 1}, digits)
    assert (model.event_shape, model.pixel_levels, model.classes) == ((1, 8, 8), 17, None)


def test_images_of_real_numbers_have_no_ready_made_model():
    source = as_source(np.random.default_rng(0).random((20, 1, 4, 4)), kind="image")
    with pytest.raises(ConfigError, match=r"images of 'data' are real numbers.*as_source\(pixels, levels=...\)"):
        choose(source.facts())


def facts_of(rows, columns, schema=None):
    sizes = {"train": rows, "validation": 10, "test": 0}
    shape = (columns,)
    return Facts(name="t", family="t", kind="table", event_shape=shape, sizes=sizes, fingerprint="", schema=schema)


def test_a_table_gets_members_width_and_dropout_by_its_size():
    few, some, many = (choose(facts_of(rows, 4)) for rows in (500, 2500, 30_000))
    assert few.model.members == ("autoregressive", "splines", "couplings")
    assert some.model.members == ("autoregressive",) * 3
    assert many.model.members == ("autoregressive",)
    assert (few.model.width, some.model.width, many.model.width) == (64, 128, 128)
    assert (few.model.dropout, some.model.dropout, many.model.dropout) == (0.3, 0.2, 0.0)
    assert (few.fit.weight_decay, many.fit.weight_decay) == (3e-2, 1e-2)
    assert [(chosen.fit.steps, chosen.fit.max_time) for chosen in (few, some, many)] == [
        (1200, 22.0),
        (1200, 22.0),
        (8000, 240.0),
    ]
    assert choose(facts_of(10**6, 4)).fit.max_time == 400.0
    assert few.fit.clock == "processor"
    limited = choose(facts_of(500, 4), fit_settings={"max_time": 3.0}).fit
    assert (limited.max_time, limited.clock) == (3.0, "wall")
    assert few.fit.clip == pytest.approx(5 / (4 * np.log(2)))
    assert (few.fit.batch_size, some.fit.batch_size, many.fit.batch_size) == (64, 312, 512)
    assert [column.name for column in few.model.schema] == ["column 1", "column 2", "column 3", "column 4"]


def test_some_thousand_rows_get_splines_of_three_passes_and_a_high_rate():
    chosen = choose(facts_of(6000, 5)).model
    assert chosen.members == ("autoregressive", "splines")
    assert (chosen.passes, chosen.copula, chosen.width) == (3, False, 128)
    # Splines of many columns need dropout, those of few lose what is sharp by it.
    assert [choose(facts_of(6000, columns)).model.dropout for columns in (6, 10, 40)] == [0.0, 0.05, 0.1]
    assert choose(facts_of(3500, 5)).model.members == ("autoregressive",) * 2
    rates = {rows: choose(facts_of(rows, 5)).fit.lr for rows in (2500, 3500, 6000, 30_000)}
    assert rates == {2500: 6e-3, 3500: 1.5e-2, 6000: 1.5e-2, 30_000: 6e-3}
    words = (ColumnSchema.category("a", ("x", "y")), ColumnSchema(name="b"))
    mixed = choose(facts_of(6000, 2, words))
    assert (mixed.model.members, mixed.model.passes, mixed.fit.lr) == (("autoregressive",), 1, 6e-3)
    many = choose(facts_of(30_000, 2, words)).fit
    assert (many.lr, many.batch_size, choose(facts_of(30_000, 2)).fit.batch_size) == (1.5e-2, 256, 512)
    alone = choose(facts_of(6000, 5), model="table-spline")
    assert (alone.model.passes, alone.model.copula, alone.fit.average) == (3, False, 0.99)
    assert choose(facts_of(500, 5), model="table-spline").model.copula


def test_a_table_of_all_kinds_has_autoregressive_members_alone():
    schema = (ColumnSchema.category("a", ("x", "y")), ColumnSchema(name="b"))
    chosen = choose(facts_of(500, 2, schema))
    assert chosen.model.schema == schema
    assert chosen.model.members == ("autoregressive",) * 3
    assert choose(facts_of(500, 2, schema), settings={"members": ("autoregressive",)}).model.members == (
        "autoregressive",
    )
    with pytest.raises(ConfigError, match=r"the table has columns of words \('a'\).*for table-flow"):
        choose(facts_of(500, 2, schema), model="flowified-mlp")
    with pytest.raises(ConfigError, match="There is no setting of the model table-flow"):
        choose(facts_of(500, 2), settings={"schemas": 1})
    with pytest.raises(ConfigError, match="leave --labels out, and name these with --given"):
        choose(facts_of(500, 2).model_copy(update={"classes": 2}), conditional=True)


def test_an_unknown_model_names_those_of_the_kind_of_the_data():
    with pytest.raises(ConfigError, match=r"no model 'nope'.* Known are: ") as caught:
        choose(open_source("iris").facts(), model="nope")
    assert "table-flow" in str(caught.value)
    assert "glow" not in str(caught.value)


def test_large_images_have_a_pyramid():
    def named(*shape, **settings):
        images = as_source(np.zeros((40, *shape), dtype=np.uint8))
        return choose(images.facts(), **settings)

    assert named(3, 20, 17).title == "pyramid"
    assert named(3, 16, 16).title == named(3, 20, 20, model_settings={"mixing": "emerging"}).title == "glow"
    assert named(1, 20, 20).fit.max_time == 600
    assert choose(open_source("sample-photos").facts()).title == "pyramid"


def test_centred_positions_get_a_model_of_centred_positions():
    facts = {"name": "a", "family": "a", "kind": "graph", "event_shape": (3,), "fingerprint": ""}
    sizes, graphs = {"train": 5000}, {"sizes": {13: 5000}, "complete": True}
    found = recipes.recipe(Facts(**facts, sizes=sizes, graphs={**graphs, "centred": True}))
    assert found.model == "point-flow"
    assert found.models["point-flow"].items() >= {"symmetry": "rotations", "centre": "dropped"}.items()
    anywhere = recipes.recipe(Facts(**facts, sizes=sizes, graphs=graphs))
    assert (anywhere.model, anywhere.models.get("point-flow")) == ("point-flow", None)


def test_steps_that_are_said_are_not_cut_off_by_the_time_of_a_recipe():
    rows = facts_of(2500, 4)
    assert choose(rows).fit.max_time == 22.0
    said = choose(rows, fit_settings={"steps": 5000}).fit
    assert (said.steps, said.max_time, said.clock) == (5000, None, "wall")
    both = choose(rows, fit_settings={"steps": 5000, "max_time": 9.0}).fit
    assert (both.steps, both.max_time) == (5000, 9.0)


def test_settings_that_nothing_reads_are_refused():
    facts = as_source(np.random.default_rng(0).normal(size=(2000, 3))).facts()
    for name, value in (("mixing", "dense-exponential"), ("passes", 2), ("bins", 5)):
        with pytest.raises(ConfigError, match=f"no effect: {name} is for members of"):
            choose(facts, settings={name: value})
    members = {"members": ("autoregressive", "couplings")}
    assert choose(facts, settings={"mixing": "dense-exponential", "bins": 5, **members}).model.bins == 5
    with pytest.raises(ConfigError, match="passes is for members of splines"):
        choose(facts, settings={"passes": 2, **members})
    for betas in ([1.5, 0.9], [0.9, -0.1]):
        with pytest.raises(ConfigError, match="betas"):
            choose(facts, fit_settings={"betas": betas})


def test_what_a_model_of_graphs_does_not_look_at_is_said():
    def unread(model, **graphs):
        known = GraphFacts(**{"sizes": {3: 900}, "complete": False} | graphs)
        facts = Facts(
            name="x", family="x", kind="graph", fingerprint="", event_shape=(2,), sizes={"train": 900}, graphs=known
        )
        return " ".join(choose(facts, model=model).unread)

    assert unread("graph-flow", weighted=True) == unread("point-flow") == unread("graph-flat", complete=True) == ""
    assert "does not look at the weights" in unread("point-flow", weighted=True)
    assert "does not look at edges" in unread("graph-flat", weighted=True)


def test_positions_on_a_line_get_no_model_that_turns_them():
    graphs = GraphFacts(sizes={3: 900}, complete=True, centred=True)
    facts = Facts(
        name="x", family="x", kind="graph", fingerprint="", event_shape=(1,), sizes={"train": 900}, graphs=graphs
    )
    chosen = choose(facts)
    assert chosen.model.model == "graph-flow"
    assert (chosen.model.coupling, chosen.model.dropout) == ("sylvester", 0.0)
