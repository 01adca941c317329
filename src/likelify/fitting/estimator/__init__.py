"""The estimator `FlowDensity` of scikit-learn's manners over `choose`, the loop and the layers of tables."""
