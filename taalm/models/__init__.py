"""Base models, adapters and Train-Attention."""
