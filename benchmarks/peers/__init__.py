"""Servers for comparison: each file is a standalone program, written as a user of that server would write it.

They import nothing from this checkout, nor from each other. The environment variable CHECKPOINT names the weights. Each
runs in the environment that benchmarks/servers.py creates for it.
"""
