"""Bags in, bags and scores out."""
