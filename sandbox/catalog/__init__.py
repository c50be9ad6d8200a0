"""Datasets: schemas, registration codes, intake of the owner's files, and rows at rest in the vault."""
