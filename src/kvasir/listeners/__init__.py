"""Sockets: each module connects one kind of listener to the dialects that speak over it."""
