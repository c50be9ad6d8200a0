"""A merchant's own models next to the data: a score card in Python, and a training with scikit-learn."""
