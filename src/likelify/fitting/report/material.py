"""What the sections of a report are made from: the run's data, scores and draws, each read or computed once.

All of it is bounded: of large data so many items that a report takes seconds, and the page says how many.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from likelify.data import Batch, Source, SplitName, subset
from likelify.errors import DataError, LikelifyError, RunError
from likelify.fitting.checks import read_for
from likelify.fitting.drawing.graphs import sample_graphs
from likelify.fitting.drawing.sampling import sample_chunks_like
from likelify.fitting.figures import Course, Evaluation, Unit
from likelify.fitting.report.drawing import label
from likelify.fitting.report.graph_pictures import view_of
from likelify.fitting.scoring.likelihoods import Likelihoods, score_parts, score_source
from likelify.fitting.scoring.reference import held_out
from likelify.fitting.structures import graphs_at
from likelify.fitting.typed import rounded
from likelify.flows import Flow
from likelify.plots.graphs import View
from likelify.seeding import picked

if TYPE_CHECKING:
    from likelify.fitting.run import Run

# Most items of each part, and most elements of them all together.
HELD, HELD_ELEMENTS = 2000, 2_000_000
TRAIN, TRAIN_ELEMENTS = 20_000, 10_000_000
DRAWN = {"image": 64, "sequence": 64, "table": 2000, "graph": 500}
DRAWN_ELEMENTS = 4_000_000
FEWEST = 16
# Of graphs: seconds of a processor that the usual number of draws may take, and draws whose likelihood is asked for.
SLOW, MEASURED = 20.0, 200
# Items that are mapped to latents at a time.
PASS = 256

T = TypeVar("T")


def once(make: Callable[[Any], T]) -> property:
    """Compute a property once; if that is an error of the library, it is raised again each time."""

    @wraps(make)
    def get(self: Any) -> T:
        kept = self.__dict__.setdefault("_kept", {})
        if make.__name__ not in kept:
            try:
                kept[make.__name__] = (make(self), None)
            except LikelifyError as error:
                kept[make.__name__] = (None, error)
        value, error = kept[make.__name__]
        if error is not None:
            raise error
        return value

    return property(get)


@dataclass(frozen=True, eq=False)
class Part:
    """Some items of a split.

    Attributes:
        split: of the source.
        batch: the items.
        indices: their numbers in the split.
        of: how many the split has.
        names: what all items of the split are called, such as the names of their files, or None.
    """

    split: SplitName
    batch: Batch
    indices: Tensor
    of: int
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def rows(self) -> np.ndarray:
        """The items as `(items, elements)` in float64.

        Raises:
            DataError: for graphs, which differ in size.
        """
        if self.batch.structure is not None:
            raise DataError("Left out for graphs: they have no fixed number of elements.")
        return as_rows(self.batch.x)

    @property
    def labels(self) -> np.ndarray | None:
        """The classes of the items, if they have any."""
        return None if self.batch.labels is None else self.batch.labels.cpu().numpy()

    def name(self, at: int) -> str:
        """Return what one of the items is called: 'test 12', or the name of its file."""
        number = int(self.indices[at])
        return f"{self.split} {number}" if self.names is None else label(self.names[number])

    def of_how_many(self) -> str:
        """Return 'all 360' or '2,000 of the 5,000'."""
        return of_how_many(len(self), self.of)


def _passes(batch: Batch) -> Iterator[Batch]:
    """Give a batch in parts that are mapped to latents at a time."""
    for numbers in torch.arange(len(batch)).split(PASS):
        if batch.structure is not None:
            yield graphs_at(batch, numbers)
        else:
            yield Batch(batch.x[numbers], None if batch.labels is None else batch.labels[numbers])


def _first_sentence(error: Exception) -> str:
    return f"{str(error).partition('. ')[0].removesuffix('.')}."


def of_how_many(count: int, whole: int) -> str:
    """Return 'all 360' or '2,000 of the 5,000'."""
    return f"all {count:,}" if count == whole else f"{count:,} of the {whole:,}"


def as_rows(x: Tensor) -> np.ndarray:
    """Return items as `(items, elements)` in float64."""
    return x.detach().cpu().double().flatten(1).numpy()


class Material:
    """All that sections ask for.

    Args:
        run: whose report it is.
        source: its data, if they are open already.

    Attributes:
        digits: of figures behind the point.
    """

    digits = 3

    def __init__(self, run: Run, source: Source | None = None) -> None:
        self.run = run
        self.config = run.config
        self.facts = run.config.data
        self.unit = Unit.of(self.facts.kind)
        self._given = source

    @property
    def elements(self) -> int:
        """Elements of an item; of a graph of the mean size."""
        nodes = 1.0 if self.facts.graphs is None else self.facts.graphs.mean_nodes
        return max(1, round(nodes * math.prod(self.facts.event_shape)))

    @property
    def better(self) -> str:
        """Which way figures get better, in words."""
        return "higher is better" if self.unit.higher_is_better else "lower is better"

    @property
    def judged(self) -> str:
        """What the held-out split had to do with the fit."""
        return (
            "the fit never saw"
            if self.split == "test"
            else "chose the weights, so that figures are a little too good (there is no test split)"
        )

    def in_unit(self, nats: np.ndarray) -> np.ndarray:
        """Return log-likelihoods of the held-out items in the unit of their kind."""
        return nats if self.unit.word == "nats" else -nats / (self.scores.dims * math.log(2))

    @once
    def course(self) -> Course:
        """The course of the fit."""
        course = self.run.course()
        if course is None:
            raise RunError("The run has no course of a fit that can be read.")
        return course

    @once
    def source(self) -> Source:
        """The data that the run was fitted to."""
        if self._given is not None:
            return self._given
        try:
            return self.run.source()
        except DataError as error:
            raise DataError(f"Left out: the data cannot be opened again. {_first_sentence(error)}") from error

    @once
    def flow(self) -> Flow:
        """The model with its weights."""
        return self.run.flow()

    @property
    def split(self) -> SplitName:
        """The split that is held out: the test split, or where that is empty the validation split."""
        return "test" if self.facts.sizes.get("test", 0) else "validation"

    @property
    def evaluation(self) -> Evaluation | None:
        """The figures that were kept of the held-out split, if they are of these weights."""
        kept = self.run.evaluation(self.split)
        return kept if kept is not None and kept.weights == self.run.digest() else None

    @once
    def held(self) -> Part:
        """The held-out items: of many those of `data.subset`."""
        return self._some(self.split, HELD, HELD_ELEMENTS)

    def real(self, enough: int) -> Part:
        """Return the items that samples are compared with: held-out ones, or if these are not enough, training ones."""
        return self.held if len(self.held) >= enough else self._few_train

    @once
    def _few_train(self) -> Part:
        return self._some("train", HELD, HELD_ELEMENTS)

    @once
    def validation(self) -> Part:
        """The items of the validation split: of many those of `data.subset`."""
        return self._some("validation", HELD, HELD_ELEMENTS)

    @once
    def train(self) -> Part:
        """The training items: of many those of `data.subset`."""
        return self._some("train", TRAIN, TRAIN_ELEMENTS)

    @once
    def scores(self) -> Likelihoods:
        """The log-likelihoods of `held`."""
        held = self.held
        if len(held) == held.of:
            nats = held_out(self.run, self.split, flow=self.flow, source=self.source).nats
            return Likelihoods(nats, None, held.batch.dims().cpu().numpy())
        some = subset(self.source, **{self.split: len(held)})
        return score_source(self.flow, some, self.split, facts=self.facts, conditional=self.config.conditional)

    @once
    def drawn(self) -> Tensor:
        """Samples of the model, the same as those that a fit keeps."""
        if self.facts.kind == "graph":
            raise DataError("Left out for graphs: they have no fixed number of elements.")
        number = self._number
        if self.facts.schema is None:
            return self.run.sample(number, seed=self.config.fit.seed)
        chunks = sample_chunks_like(self.run, lambda: self.source, self.split, number, seed=self.config.fit.seed)
        rows = torch.cat([part.x for part in chunks]).double().numpy()
        # As they are written to files: only so a copy is one.
        return torch.from_numpy(rounded(rows, self.facts.schema))

    @property
    def _number(self) -> int:
        return min(DRAWN[self.facts.kind], max(FEWEST, DRAWN_ELEMENTS // self.elements))

    @once
    def drawn_graphs(self) -> Batch:
        """Graphs that the model draws: fewer than usual if drawing takes long."""
        return self._timed_graphs[0]

    @property
    def slowness(self) -> str:
        """A sentence on how long drawing takes, if it is long; else nothing."""
        seconds = self._timed_graphs[1]
        if seconds * self._number <= SLOW:
            return ""
        return f" They are few since this model draws slowly, about {seconds:.1g} s of a processor for each graph."

    @once
    def _timed_graphs(self) -> tuple[Batch, float]:
        seed, start = self.config.fit.seed, time.process_time()
        few = sample_graphs(self.run, FEWEST, seed=seed)
        seconds = (time.process_time() - start) / FEWEST
        return (few if seconds * self._number > SLOW else sample_graphs(self.run, self._number, seed=seed)), seconds

    @once
    def drawn_per_node(self) -> np.ndarray:
        """The log-likelihood per node of the first graphs that are drawn."""
        batch = self.drawn_graphs.head(MEASURED)
        found = score_parts(self.flow, batch, self.facts, conditional=self.config.conditional)
        return found.nats * math.prod(self.facts.event_shape) / found.dims

    @once
    def view(self) -> View:
        """How all graphs of the page are seen: as held-out ones suggest."""
        return view_of(self.held.batch, self.facts)

    @once
    def latents(self) -> tuple[Tensor, Tensor]:
        """The noise that held-out items are made of under the model `(items, elements)`, and as many normal draws.

        With what split priors drop. Where the way there is random, it is of one draw; if the base is not normal, these
        are its latents, and draws of the base. Of graphs these are nodes, not items. Words, steps and members of
        mixtures have no latent of their own, so those of rows are compared with those of rows that the model draws.
        """
        from likelify.fitting.drawing.latents import encode
        from likelify.fitting.metrics import EVALUATION_SEED
        from likelify.seeding import seeded

        batch = read_for(self.flow, self.source, self.split, self.held.indices)
        found, drawn = [], []
        with seeded(EVALUATION_SEED), torch.no_grad(), self.flow.frozen():
            for part in _passes(batch):
                latent = encode(self.flow, part.x, part.context(conditional=self.config.conditional), noisy=True)
                noise = [each.values.flatten(1) for each in (latent.last, *latent.dropped) if each.is_noise]
                if latent.last.is_noise:
                    found.append(torch.cat(noise, 1))
                    drawn.append(torch.randn_like(found[-1]))
                else:
                    reads, base = self.flow.base.reads_condition, self.flow.base
                    told = reads or part.structure is not None
                    other = base.sample((), latent.context) if told else base.sample((len(part),))
                    found.append(latent.last.values.flatten(1))
                    drawn.append(other.flatten(1))
            if self.compares_draws:
                rows = self.drawn.to(batch.x)
                drawn = [encode(self.flow, part.x, None, noisy=True) for part in _passes(Batch(rows))]
                drawn = [torch.cat([each.values.flatten(1) for each in (one.last, *one.dropped)], 1) for one in drawn]
        return torch.cat(found), torch.cat(drawn)

    @property
    def compares_draws(self) -> bool:
        """Whether latents are compared with those of draws of the model, not with its base."""
        given = any(column.given for column in self.facts.meaning)
        return self.facts.kind == "table" and not self.config.conditional and not given

    def _some(self, split: SplitName, items: int, elements: int) -> Part:
        size = self.source.size(split)
        if not size:
            raise DataError(f"The split '{split}' has no items.")
        most = min(size, items, max(FEWEST, elements // self.elements))
        indices = torch.from_numpy(np.arange(size) if most == size else picked(size, most))
        return Part(split, self.source.read(split, indices), indices, size, self.source.item_names(split))
