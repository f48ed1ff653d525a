"""The pool D and what the models said about it."""
