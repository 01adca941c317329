"""Whether certificates hold: thousands of random maps, each bound against what happens in extended precision.

Every case draws a kind of map, its sizes, norm, trace, dtype, tolerance, time, method and input from one seed, and
compares with `exp(tL)` in 80-bit precision (`benchmarks.certificates.checks.run(seed)` is a single case). Checked are
the norm bound, the error bound of each item, the tolerance of each item, the bound of the log-determinant, the reported
trace and the bound of the parameters' gradients, in the direction of the worst error and in a random one; and for whole
flows the certificate in nats. Rounding gets the allowance that the diagnostics report, no more.
"""
