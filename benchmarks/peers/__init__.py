"""Servers to compare with: each file is a standalone program, written as a user of that server would write it.

They import nothing from this checkout and share nothing. The environment variable CHECKPOINT names the weights. Each
runs in the environment that benchmarks/servers.py creates for it.
"""
