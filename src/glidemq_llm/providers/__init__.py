"""One file per client library: which of its methods make model calls, and how its answers are reached.

A module here may import its SDK, and no other's.
"""
