"""Data that models learn from: datasets of users and the files that they are made of."""
