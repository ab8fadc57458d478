"""How the node is known to others."""

NODE = "segment"
READY = "ready: classes"
"""With what it begins to say in its log that it is active."""
