"""Simulated drives through made-up streets: labelled scans, pictures, poses and times that are exact."""
