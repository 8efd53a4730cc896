"""How each vendor speaks: a request out, an answer in. Knows nothing of caches or routes."""
