"""Canonical form: rewrites Graph → Graph, one small file each."""
OPSET = 21
