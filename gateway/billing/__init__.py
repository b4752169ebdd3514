"""What accounts buy: subscriptions and add-ons by way of Stripe."""
