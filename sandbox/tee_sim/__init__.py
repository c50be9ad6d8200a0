"""A merchant's own code next to the data: measured, attested and confined. A simulation, and everything says so."""
