"""The test kit: contract suites, an in-process world, an independent evaluator."""
