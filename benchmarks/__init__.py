"""The numbers we claim, runnable: `python -m benchmarks.NAME [--quick] [--json PATH]`."""
