"""Pairs of scans: how alike are real and synthetic scans, voxel by voxel?"""
