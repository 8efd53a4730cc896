"""What has been answered before: keys, policies, stores, single-flight. Knows nothing of vendors."""
