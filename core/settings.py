"""Process-wide settings, read at call time. `rejoinder.cache`, `rejoinder.num_retries` … are these."""

from __future__ import annotations

from typing import Any

cache: Any = None
"""The cache that calls use unless they name another: a `rejoinder.Cache`, or None."""

cache_mode: str | None = None
"""The mode of every cache of this process, or None: each has its own."""

ledger: Any = None
"""What counts all calls of the process: a `rejoinder.Ledger`, or None."""

num_retries: int = 2
"""Further attempts after a first one that failed for a passing reason."""

request_timeout: float = 600.0
"""Seconds for one attempt."""

drop_params: bool = False
"""Leave out parameters that a provider does not know, instead of raising."""

offline: bool = False
"""Nothing may be sent: a call that would have to be raises `CacheMiss`. Set by the pytest plugin."""

shape: Any = None
"""How arguments of a call become a `Request`: set by `router/shape.py`, so that a cache can give the key of a call."""
