"""Computing on secret shares: joint training of a logistic model, and scores from partial sums.

* ``reference``  the training in the clear, and the preparation each side does alone: start here
* ``logistic``   the same training with three parties under ABY3, in a child process
* ``scorecard``  points from quantised partial sums; needs no engine at all
"""
