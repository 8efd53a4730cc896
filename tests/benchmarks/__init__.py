"""What rejoinder costs, beside what the cheapest honest code would cost. Run it: `python -m tests.benchmarks`."""
