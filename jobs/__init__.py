"""Ready-to-submit examples, one folder each, run by the tests."""
