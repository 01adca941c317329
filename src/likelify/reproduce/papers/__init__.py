"""The experiments of each paper: methods, data, how long they are fitted, and what the paper printed."""
