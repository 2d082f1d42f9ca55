"""Layers, backbones and the loss; nothing here knows of SSD's table of nets."""
