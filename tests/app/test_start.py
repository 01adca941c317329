"""What is answered without a model or data does not wait for torch."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from likelify.app.cli import main
try:
    main()
except SystemExit:
    pass
slow = {"torch", "lightning_fabric", "sklearn", "matplotlib", "scipy"} & sys.modules.keys()
assert not slow, slow
"""


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("--help", "likelify fit digits"),
        ("fit --help", "--max-time"),
        ("models", "table2-sylvester"),
        ("fit digit", "There is no source 'digit'. Did you mean 'digits'?"),
        ("fit nothere.csv", "There is no file 'nothere.csv'."),
        ("fit mnist:nothere", "There is no folder 'nothere'."),
        ("fit digits --model glwo", "There is no model 'glwo'. Did you mean 'glow'?"),
        ("fit digits --preset table2-silvester", "Did you mean 'table2-sylvester'"),
        ("fit --dry-run --model glow --mixing emergin", "There is no mixing 'emergin'. Did you mean 'emerging'?"),
        ("fit --dry-run --model glow --set hiden=3", "Did you mean 'hidden'?"),
        ("reproduce", "Fashion-MNIST: 15 cells, at most 1.5 hours"),
        ("reproduce flowification-table", "Did you mean 'flowification-tables'"),
        ("evaluate nothere", "'nothere' is not a run folder"),
        ("sample nothere", "'nothere' is not a run folder"),
    ],
)
def test_no_torch_for(words, answer, tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words.split()], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert answer in " ".join((done.stdout + done.stderr).split())
