"""What only a device can show: the laws on it, host syncs of every layer, steps, exponentials, fits; one table.

    python -m benchmarks.device --json results/device_CARD.json
    python -m benchmarks.device --part laws --quick

Every part has its share of eight minutes, and says what it left out for lack of time. Without an accelerator the laws
and fits run on the CPU, and the other parts, which would say nothing there, are left out.
"""
