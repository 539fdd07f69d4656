"""Measurements that the project's pages quote; run by `make bench-…`, never imported by the package."""
