"""Calls to other machines: tokens, certificates, and which addresses may be asked at all."""
