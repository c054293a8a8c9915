"""Prometheus metrics, over one or several web processes."""
