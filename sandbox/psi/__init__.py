"""Private set intersection: which keys two parties share, without showing the others.

* ``contract``   what every engine is given and gives back: start here
* ``rr22``       the fast engine, in a child process, for machines that have ``spu``
* ``ecdh``       our own engine, for every machine
* ``reference``  the same in the clear, which both must equal
"""
