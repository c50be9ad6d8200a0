"""Arithmetic modulo large numbers in batches.

* ``slices``      how work is cut up, for every back end
* ``fallback``    one slice through GMP

Only ``sandbox.crypto.modexp`` imports from here.
"""
