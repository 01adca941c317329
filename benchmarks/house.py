"""How much a reader meets: lines, files passed by one training call, edits for a new model, time to the first answer.

Lines, functions and words are counted in the files of `src`, `benchmarks` and `tests`; the training call and the
command line are run. A docstring is no part of a function's body; comments and blank lines inside are.
"""

import ast
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, ModuleType

import torch

import likelify
from benchmarks.report import Entry, arguments, report

ROOT = Path(__file__).parents[1]
PACKAGE = Path(likelify.__file__).parent
SUFFIXES = ".py", ".pyi"
SOURCE, AROUND = ("src",), ("benchmarks", "tests")
COMMANDS = ("--help", "models", "fit nosuch-source", "fit missing.csv")
# What CPython calls the code of comprehensions, which a reader does not count as functions.
COMPREHENSIONS = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>")


def python_files(*folders: str, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Return the Python files of some folders of the repository, stubs too."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py*") if path.suffix in suffixes)


def file_length(path: Path) -> int:
    """Return the number of lines."""
    return len(path.read_text().splitlines())


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return the functions of a file, methods and inner functions too, each with its name and line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def body_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function's body, without its docstring."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = node.body[1:] if documented else node.body
    if not body:
        return 0
    last = max(statement.end_lineno or statement.lineno for statement in body)
    return last - body[0].lineno + 1


def annotated(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function's result and all its arguments, but for `self` and `cls`, have types."""
    own = node.args
    every = [*own.posonlyargs, *own.args, own.vararg, *own.kwonlyargs, own.kwarg]
    named = [argument for argument in every if argument is not None and argument.arg not in ("self", "cls")]
    return node.returns is not None and all(argument.annotation is not None for argument in named)


def longest(folders: Iterable[str]) -> tuple[int, int]:
    """Return the lengths of the longest file and of the longest function's body, and print which they are."""
    paths = python_files(*folders)
    lines, path = max((file_length(path), path) for path in paths)
    body, name = max((body_length(node), name) for path in paths for name, node in functions(path))
    print(f"{' and '.join(folders)}: {path.relative_to(ROOT)} has {lines} lines, {name} {body}")
    return lines, body


def codes_passed(run: Callable[[], object], package: Path) -> set[CodeType]:
    """Return the functions of a package that are called during a run, lambdas too."""
    found: set[CodeType] = set()

    def watch(frame: object, event: str, _: object) -> None:
        code = frame.f_code  # pyright: ignore[reportAttributeAccessIssue]
        inside = event == "call" and code.co_filename.startswith(str(package))
        if inside and code.co_name not in COMPREHENSIONS:
            found.add(code)

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def training_call() -> set[CodeType]:
    """Return the functions passed by a forward and a backward pass through `conv_exponential(3)`."""
    layer, x = likelify.conv_exponential(3), torch.randn(2, 3, 8, 8)

    def step() -> None:
        value, log_det = layer(x)
        (value.square().sum() - log_det.sum()).backward()

    step()  # modules that are imported when first needed are no part of the call
    return codes_passed(step, PACKAGE)


def contract_entries() -> int:
    """Return the number of modules that the layers of the import contracts list."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return sum(len(layer.split("|")) for contract in contracts for layer in contract.get("layers", ()))


def code_of(path: Path) -> str:
    """Return the text of a file without its docstrings, whose examples need no edit."""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "\n".join(lines)


def files_naming(word: str) -> int:
    """Return the number of files of `src` whose code names a word, and print them."""
    found = [path for path in python_files(*SOURCE) if re.search(rf"\b{word}\b", code_of(path))]
    print(f"{word}:", ", ".join(str(path.relative_to(ROOT)) for path in found))
    return len(found)


def top_level_names() -> int:
    """Return the number of public names that are no modules."""
    return sum(not isinstance(getattr(likelify, name), ModuleType) for name in likelify.__all__)


def processor_seconds(command: str) -> float:
    """Return user and system time of one run of the command line, in a process of its own in an empty folder."""
    start = "import sys; sys.argv[0] = 'likelify'; from likelify.app.cli import main; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", start, *command.split()], capture_output=True, cwd=folder, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Count, run and report."""
    options = arguments(__doc__ or "")
    codes = training_call()
    lengths = {suffix: sum(map(file_length, python_files(*SOURCE, suffixes=(suffix,)))) for suffix in SUFFIXES}
    file, function = longest(SOURCE)
    other_file, other_function = longest(AROUND)
    entries = [
        Entry("lines of src", lengths[".py"], "lines"),
        Entry("lines of stubs", lengths[".pyi"], "lines"),
        Entry("files passed by a training call", len({code.co_filename for code in codes}), "files", 12),
        Entry("functions passed by a training call", len(codes), "functions"),
        Entry("files that name glow", files_naming("glow"), "files", 2),
        Entry("modules listed in import contracts", contract_entries(), "modules"),
        Entry("longest file of src", file, "lines", 500),
        Entry("longest function of src", function, "lines", 40),
        Entry("longest file of benchmarks and tests", other_file, "lines", 500),
        Entry("longest function of benchmarks and tests", other_function, "lines", aim=40),
        Entry("top-level names", top_level_names(), "names", aim=60),
    ]
    for command in COMMANDS:
        times = [processor_seconds(command) for _ in range(1 if options.quick else 3)]
        entries.append(Entry(f"likelify {command}", statistics.median(times), "processor s", 0.5))
    report(entries, options.json)


if __name__ == "__main__":
    main()
