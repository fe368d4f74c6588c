"""Pairs of scans: how similar are real and synthetic scans, voxel by voxel?"""
