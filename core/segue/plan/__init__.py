"""The plan: a flow compiled to data (pure)."""
