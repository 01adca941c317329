"""The law of readers: whatever a file holds, nothing of it is run, little memory and time are spent, and the errors are
ours.

A test module lists its readers in `READERS` and calls `check(__name__, cases)`. The cases run in a process of their
own: valid files are written once, then one of them is spoiled for each case and read again.
"""

import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random

from likelify.errors import LikelifyError
from tests.mutations import explode, mutate

MEGABYTES, SECONDS = 1000, 10
EVERY = 97
CANARY = "likelify_canary"
# What code that is run by a file would do; reading needs none of it.
FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "pickle.", "ctypes.", "urllib.", "tempfile.", "webbrowser.")
HARMLESS = ("os.listdir", "os.scandir", "os.walk")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Modules of these are loaded when they are first needed.
OURS = ("likelify", "PIL", "numpy", "torch", "encodings", "sklearn", "scipy", "pyarrow")


@dataclass(frozen=True)
class Reader:
    """What reads files.

    Attributes:
        name: for the report.
        write: puts valid files into an empty folder.
        read: reads them from that folder.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


@dataclass
class Report:
    """What came of the cases; memory in megabytes beyond that of valid files, time in seconds of the processor."""

    cases: int = 0
    read: int = 0
    memory: float = 0.0
    slowest: float = 0.0
    total: float = 0.0
    faults: list[str] = field(default_factory=list)


def check(module: str, cases: int, seed: int = 0) -> Report:
    """Run cases over the readers of a test module in a process of their own, and assert the law."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", module, str(cases), str(seed), folder],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (
            f"the process ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-3000:]}"
        )
        report = Report(**json.loads(done.stdout.splitlines()[-1]))
        assert not report.faults, "\n".join([f"{len(report.faults)} faults", *report.faults[:20]])
        assert not (Path(folder) / CANARY).exists()
    assert report.cases == cases
    assert report.memory < MEGABYTES
    return report


class Watch:
    """Notes what is done while files are read."""

    def __init__(self) -> None:
        self.armed = False
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.armed:
            return
        wrong = event.startswith(FORBIDDEN) and event not in HARMLESS
        if event == "open":
            flags = arguments[2]
            wrong = isinstance(flags, int) and bool(flags & WRITING)
        if event == "import":
            wrong = str(arguments[0]).partition(".")[0] not in OURS
        if wrong:
            self.seen.append(f"{event}{str(arguments)[:100]}")


def run(readers: list[Reader], cases: int, seed: int, folder: Path) -> Report:
    """Spoil and read files in this process."""
    report, watch = Report(cases), Watch()
    valid: dict[str, dict[Path, bytes]] = {}
    for reader in readers:
        place = folder / reader.name
        place.mkdir()
        reader.write(place)
        reader.read(place)
        valid[reader.name] = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    warnings.simplefilter("error")
    before = _peak()
    _bound_memory()
    for number in range(cases):
        reader, random = readers[number % len(readers)], Random(f"{seed} {number}")
        path, content = random.choice(list(valid[reader.name].items()))
        others = [other for other in valid[reader.name].values() if other is not content]
        # Bombs take most of the time, so that their number is fixed.
        bomb = number % EVERY == EVERY - 1
        spoiled, how = mutate(content, random, others, folder / CANARY, [explode] if bomb else None)
        path.write_bytes(spoiled)
        case = f"case {seed} {number}, {reader.name}, {path.name}: {how}"
        _read(reader, folder, case, report, watch)
        path.write_bytes(content)
        grown = (_peak() - before) / 1e3
        if grown > max(report.memory, MEGABYTES):
            report.faults.append(f"{case}: {grown:.0f} MB")
        report.memory = max(report.memory, grown)
        if {each for each in folder.glob(f"{reader.name}/**/*") if each.is_file()} != set(valid[reader.name]):
            report.faults.append(f"{case}: files were written")
    return report


def _read(reader: Reader, folder: Path, case: str, report: Report, watch: Watch) -> None:
    """Read spoiled files once, and note what is wrong."""
    # Where the machine is busy a case takes longer than its share of the processor.
    faulthandler.dump_traceback_later(20 * SECONDS, exit=True)
    sys.stdout.write(f"{case}\n")
    sys.stdout.flush()
    begin, watch.armed = time.process_time(), True
    try:
        reader.read(folder / reader.name)
        report.read += 1
    except LikelifyError as error:
        if isinstance(error.__cause__, MemoryError):
            report.faults.append(f"{case}: more memory than there is")
        if not str(error).isprintable() or len(str(error)) > 1500:
            report.faults.append(f"{case}: an error that cannot be shown: {str(error)[:200]!r}")
    except BaseException as error:
        report.faults.append(f"{case}: {type(error).__name__}: {str(error)[:200]}, at {_where(error)}")
    finally:
        watch.armed = False
        faulthandler.cancel_dump_traceback_later()
    took = time.process_time() - begin
    report.slowest, report.total = max(report.slowest, took), report.total + took
    if took > SECONDS:
        report.faults.append(f"{case}: {took:.1f} s")
    report.faults += [f"{case}: {each}" for each in watch.seen]
    watch.seen.clear()


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _peak() -> float:
    """Return the most memory that this process has had, in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bound_memory() -> None:
    """Let allocations beyond the law fail, so that a fault does not take the machine with it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2 * MEGABYTES * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _main(module: str, cases: str, seed: str, folder: str) -> None:
    place = Path(folder)
    (place / "modules").mkdir()
    # A module that a hostile file may name; loading it leaves a trace.
    (place / "modules" / f"{CANARY}.py").write_text(f"open({str(place / CANARY)!r}, 'w').close()\n")
    sys.path.append(str(place / "modules"))
    files = place / "files"
    files.mkdir()
    report = run(import_module(module).READERS, int(cases), int(seed), files)
    sys.stdout.write(json.dumps(asdict(report)) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
