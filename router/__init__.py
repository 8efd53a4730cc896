"""The front door, and the only place that knows both providers and caching."""
