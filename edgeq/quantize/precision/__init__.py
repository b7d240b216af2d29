"""Layers of several precisions in one network: where values live, what parts cost, which layers to lift."""
