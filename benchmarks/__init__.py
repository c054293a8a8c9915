"""Measurements, each a ratio within one run: every benchmarks/<name>.py with a function `main` is one.

    main(*, data: Path, rounds: int) -> str

takes the folder of datasets and how often to repeat each measurement, and returns a table.
"""
