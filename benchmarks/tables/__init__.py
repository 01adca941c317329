"""Densities of tables: the default model beside mixtures, kernels and spline flows, in nats and in rows per second."""
