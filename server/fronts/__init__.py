"""The fronts: client protocols of other vendors, so that their SDKs can be pointed here.

A front only translates. What it carries takes the one road that native speech takes.
"""
