"""Readers of the file formats of datasets: each yields rows, one at a time."""
