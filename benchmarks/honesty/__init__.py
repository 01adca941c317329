"""Whether anything fails in silence: the engine, the layers and flows are fed what should fail or be refused.

A failure is *silent* if the answer is wrong and nothing says so: the relative error against `scipy.linalg.expm` in
double precision is above ten times the tolerance, or an element is not finite, or a gradient is lost, while no
exception was raised and the diagnostics claim convergence. Outcomes:

- right: the answer is right;
- refused: an exception of the library, with a message that says what to do;
- admitted: wrong by more than ten times the tolerance, and the diagnostics say so (no convergence, a problem, or a
  reported allowance for rounding that covers it);
- cryptic: an exception of another kind, from PyTorch or Python;
- SILENT.
"""
