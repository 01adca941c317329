"""One life of a fitted model: recipes, the loop that fits, the run folder, and what is measured and drawn."""
