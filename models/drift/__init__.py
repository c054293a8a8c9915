"""Distributions of features and answers: what drift is measured against, and counted by."""
