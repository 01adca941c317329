"""The report of a run: one page of HTML that shows what was fitted, how well, and what to doubt."""
