"""A bank and a public-data operator score credit jointly: data, parties and the figures in the clear."""
