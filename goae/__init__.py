"""Geometry and occlusion-aware encoding for 3D GAN inversion."""
