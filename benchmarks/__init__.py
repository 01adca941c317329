"""Scripts behind every figure that the README names; run as `python -m benchmarks.NAME [--quick] [--json FILE]`."""
