"""What rejoinder bears: `python -m tests.reliability` runs it through trouble and counts what went wrong."""
