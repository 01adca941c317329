import subprocess
import sys

import pytest

PROGRAM = """
import sys
from likelify.data import open_source
from likelify.errors import DataError
try:
    open_source(sys.argv[1])
except DataError as error:
    print(error)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "Did you mean 'digits'"),
        ("nothere.csv", "There is no file 'nothere.csv'"),
        ("nothere/", "There is no folder 'nothere/'"),
        ("images:nothere", "There is no folder 'nothere'"),
        (__file__.replace("test_without_torch.py", ""), "has no pictures whose names end in .png"),
        ("table:nothere.npy", "There is no file"),
        ("mnist:nothere", "There is no folder 'nothere'"),
        ("cifar-10:nothere", "There is no file or folder 'nothere'"),
        ("power:nothere", "There is no folder 'nothere'"),
    ],
)
def test_what_is_missing_is_said_without_torch(name, message):
    done = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert message in done.stdout
