"""A bank asks for the median of what social insurance knows of its applicants, by sector: rows of two owners meet."""
