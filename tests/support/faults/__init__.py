"""Load on servers that are hurt, and the checks of what they answered."""
