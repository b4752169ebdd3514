"""Pure facts and arithmetic: limits, windows, tiers, usage, decisions, faults. No I/O, no clock, no async."""
