"""Some columns of rows given others, under a model of tables: draws, quantiles, densities."""
