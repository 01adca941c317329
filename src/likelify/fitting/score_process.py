"""A process that scores passes of items: `python -m likelify.fitting.score_process`, started by `sharing`.

It reads from standard input what run to load and then the passes, and writes scores to standard output. It ends when
standard input ends, which it does when the process that started it does, however that may be.
"""

import os
import sys
from pathlib import Path
from typing import IO, Any

from likelify.errors import LikelifyError, RunError


def main() -> None:
    """Answer passes until there are no more."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from likelify.fitting.scoring.sharing import receive

    request = receive(sys.stdin.buffer)
    if request is not None:
        try:
            _answer(request[0], answers)
        except BrokenPipeError:
            os._exit(1)


def _answer(request: dict[str, Any], answers: IO[bytes]) -> None:
    import torch

    from likelify.data import Batch
    from likelify.data.graphs import unpacked
    from likelify.fitting.run import Run
    from likelify.fitting.scoring.scorer import Scorer, Wanted
    from likelify.fitting.scoring.sharing import receive, send

    torch.set_num_threads(1)
    try:
        run = Run.load(Path(request["run"]))
        if run.digest() != request["digest"]:
            raise RunError(f"The weights of '{run.path}' have changed since the scoring began.")
        scorer = Scorer(run, Wanted.parse(request["wanted"]))
        with scorer.flow.frozen():
            while (message := receive(sys.stdin.buffer)) is not None:
                header, arrays = message
                arrays = {name: values.copy() for name, values in arrays.items()}
                given = {name: torch.from_numpy(arrays[name]) for name in ("x", "labels") if name in arrays}
                batch = Batch(**given, structure=unpacked(arrays))
                scored = scorer(batch, header["number"], request["name"])
                likelihoods = vars(scored.likelihoods) | {"gains": scored.gains}
                send(answers, {}, {name: values for name, values in likelihoods.items() if values is not None})
    except (LikelifyError, MemoryError) as error:
        text = " ".join(str(error).split()) or "There is not enough memory."
        send(answers, {"error": type(error).__name__, "text": text}, {})


if __name__ == "__main__":
    main()
