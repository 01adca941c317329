"""One use of an experiment: which cells are finished, which are to be run, and the report."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from likelify.errors import ConfigError, DataError, MissingDependencyError
from likelify.fitting.files import make_folder, write_atomically
from likelify.fitting.sources import open_data, public_facts
from likelify.reproduce.costs import AnyCell
from likelify.reproduce.experiment import Experiment
from likelify.reproduce.render import to_html, to_markdown
from likelify.reproduce.results import CellState, read_states
from likelify.reproduce.runner import Folders
from likelify.reproduce.store import read_cells
from likelify.reproduce.table import Picture, Report, build_report

# In a checkout, results and their pages in the documentation are committed; what is large or a trial never is.
COMMITTED, PAGES = Path("results"), Path("docs/results")
UNCOMMITTED = Path("runs/reproduce")
PAGE = "report.md"


@dataclass(frozen=True)
class Session:
    """The cells of an experiment and the folder of their results.

    Attributes:
        experiment: the experiment.
        cells: all cells that its tables need.
        results: folder of the results.
        page: file of the report.
        runs: folder of the run folders of fits.
        states: which of the cells are finished.
        absent: sources that cannot be opened, with the reason.
        fingerprints: of the sources that were opened.
    """

    experiment: Experiment
    cells: list[AnyCell]
    results: Path
    page: Path
    runs: Path
    states: list[CellState]
    absent: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def open(
        experiment: Experiment,
        *,
        seeds: int | None = None,
        budget: float | None = None,
        files: str | None = None,
        out: Path | None = None,
    ) -> "Session":
        """Read which cells are finished.

        Args:
            experiment: the experiment.
            seeds: number of seeds, instead of the usual one.
            budget: seconds of each fit, instead of the usual ones. Its results have a folder of their own.
            files: folder of the user's data.
            out: folder in which that of the results is made; by default `results` in a checkout.

        Raises:
            ConfigError: if a number does not fit, or all data are files of the user and no folder is named.
            RunError: if there are results that cannot be read.
        """
        usual = budget is None and experiment.scale != "quick"
        committed = out is None and usual and COMMITTED.is_dir() and PAGES.is_dir()
        if budget is not None:
            experiment = experiment.within(budget)
        results = (COMMITTED if committed else out or UNCOMMITTED) / experiment.folder
        runs = (out or UNCOMMITTED) / "fits"
        cells = experiment.cells(seeds, files)
        # A page of fewer seeds than are kept takes no place of one of all.
        whole = {cell.name for cell in experiment.cells(None, files)} - {cell.name for cell in cells}
        fewer = committed and bool(whole & read_cells(results).keys())
        page = PAGES / f"{experiment.folder}.md" if committed else results / PAGE
        if fewer:
            page = UNCOMMITTED / experiment.folder / PAGE
        if files is None:
            # Data of the user's files are there only in results.
            kept = read_cells(results)
            there = {cell.data.source for cell in cells if cell.name in kept}
            data = [data for data in experiment.data if not data.from_files or data.choice.source in there]
            if experiment.data and not data:
                names = ", ".join(data.title for data in experiment.data)
                raise ConfigError(f"{experiment.name} needs your files of {names}: name their folder with --data.")
            experiment = replace(experiment, data=data)
            cells = experiment.cells(seeds, files)
        return Session(experiment, cells, results, page, runs, read_states(cells, results))

    def checked(self) -> "Session":
        """Return the session after opening its data: cells of other data are stale, and missing data are noted."""
        absent, fingerprints = {}, {}
        for choice in {cell.data.source: cell.data for cell in self.cells}.values():
            try:
                fingerprints[choice.source] = public_facts(open_data(choice), choice).fingerprint
            except (DataError, MissingDependencyError, OSError) as error:
                absent[choice.source] = str(error)
        states = [_of_data(state, fingerprints) for state in self.states]
        return replace(self, states=states, absent=absent, fingerprints=fingerprints)

    def again(self) -> "Session":
        """Return the session as it is after cells were run; those of other data than were opened stay stale."""
        states = [_of_data(state, self.fingerprints) for state in read_states(self.cells, self.results)]
        return replace(self, states=states)

    def todo(self, *, again: bool = False) -> list[AnyCell]:
        """Return the cells to run: those that are missing, damaged or failed, and stale ones if `again`.

        Cells whose data are not there are left out.
        """
        wanted = {"missing", "damaged", "failed"} | ({"stale"} if again else set())
        return [s.cell for s in self.states if s.status in wanted and s.cell.data.source not in self.absent]

    def of(self, *statuses: str) -> list[CellState]:
        """Return the cells of some statuses."""
        return [state for state in self.states if state.status in statuses]

    def folders(self, *, again: bool = False) -> Folders:
        """Return the folders that cells write to; when run again, they do not take models that are already fitted."""
        return Folders(results=self.results, runs=self.runs, reuse=not again)

    @property
    def pictures(self) -> Path:
        """Return the folder of the pictures that the page shows."""
        return self.results if self.page.parent == self.results else self.page.with_suffix("")

    def report(self) -> Report:
        """Return the report of what is finished."""
        return build_report(self.experiment, self.states, self.results)

    def write(self, report: Report, html: Path | None = None) -> list[Path]:
        """Write the report as Markdown, and as HTML if a file is named; return the files."""
        written = []
        if report.drawing is not None:
            make_folder(self.pictures)
            for name, content in report.drawing.files.items():
                write_atomically(self.pictures / name, content)
        if report.drawing is not None or self.results.is_dir():
            report = replace(report, pictures=[self._beside_page(picture) for picture in report.pictures])
            write_atomically(self.page, to_markdown(report, self.page.parent, self.pictures).encode())
            written.append(self.page)
        if html is not None:
            make_folder(html.parent)
            write_atomically(html, to_html(report).encode())
            written.append(html)
        return written

    def _beside_page(self, picture: Picture) -> Picture:
        """Copy a picture to where the page can show it: the documentation shows nothing from outside its folder."""
        if self.pictures == self.results:
            return picture
        copy = self.pictures / picture.file.name
        make_folder(copy.parent)
        write_atomically(copy, picture.file.read_bytes())
        return replace(picture, file=copy)


def _of_data(state: CellState, fingerprints: dict[str, str]) -> CellState:
    """Return the state of a cell as its data say: one that was run on others is stale."""
    now = fingerprints.get(state.cell.data.source)
    if state.status != "finished" or state.result is None or now in (None, state.result.facts.fingerprint):
        return state
    why = f"the data have the fingerprint {now} now, had {state.result.facts.fingerprint}"
    return replace(state, status="stale", why=why)
