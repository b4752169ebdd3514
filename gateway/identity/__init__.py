"""From a credential to an account and its entitlements; cached, revocable."""
