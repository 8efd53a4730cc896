"""The leaves that every other part may import: values, errors, flow, settings. Imports nothing of ours."""
