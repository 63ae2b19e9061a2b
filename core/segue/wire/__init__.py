"""The wire: envelope, subjects and requests (pure)."""
