"""What differs between API shapes: estimates, usage, errors, limit headers."""
