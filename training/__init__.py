"""Training: datasets, recipes, the epoch loop and the command line."""
