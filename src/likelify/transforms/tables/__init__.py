"""From rows of a table to what models of tables are made of: fitted marginals of columns, and columns of any kind."""
