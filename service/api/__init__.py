"""HTTP: requests -> calls of the parts below, their results -> answers."""
