"""Storms of sign-ins: what they may cost, and that nobody learns from them who exists."""
