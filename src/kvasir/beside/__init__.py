"""What would hold the event loop for long, done beside it: `process` and `thread`, which say what is for which.

`python -m kvasir.beside` is the process, see `__main__`. It starts with its first request, in whichever process that
comes, so nothing of it is loaded here.
"""
