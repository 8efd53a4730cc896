"""Where entries are kept. One file each, checked by `tests/conformance/store.py`."""
