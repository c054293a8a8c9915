"""Plots, event files and console output of runs."""
